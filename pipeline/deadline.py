"""``budget.deadline`` as people write it: a time of day, a date and time, or how long from now.

Pure: the present is passed in.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from pipeline.errors import SpecError

_CLOCK = re.compile(r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(:(?P<second>\d{2}))?")
_SPAN = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?")
_FORMS = 'write a time of day ("06:00"), a date and time ("2030-01-31T06:00+01:00") or a span ("2h30m", "45s")'


def resolve_deadline(text: str, now: datetime) -> datetime:
    """The moment ``text`` means. ``now`` is aware; times without a zone are in its zone.

    A time of day is the next one to come. A span counts from ``now``, that is, from the start of each command.

    Raises:
        SpecError: it cannot be read, or has passed.
    """
    text = text.strip()
    if clock := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in clock.group("hour", "minute", "second"))
        if hour > 23 or minute > 59 or second > 59:
            raise SpecError(f"budget.deadline: {text!r} is no time of day; {_FORMS}")
        found = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
        return found if found > now else found + timedelta(days=1)
    span = _SPAN.fullmatch(text)
    if text and span:
        hours, minutes, seconds = (float(span[name] or 0) for name in "hms")
        try:
            length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
            found = now + length
        except OverflowError:
            raise SpecError(f"budget.deadline: {text!r} is too long a span") from None
        if not length:
            raise SpecError(f"budget.deadline: {text!r} is no time at all; name a span longer than 0")
        return found
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SpecError(f"budget.deadline: {text!r} cannot be read; {_FORMS}") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=now.tzinfo)
    if found <= now:
        raise SpecError(
            f"budget.deadline: {text!r} has passed (it is {now.isoformat(timespec='seconds')}); name a later one"
        )
    return found


def check_form(text: str) -> str:
    """``text`` where it can be read as a deadline; whether it has passed is seen when a run starts.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        resolve_deadline(text, datetime.min.replace(year=1000).astimezone())
    except SpecError as error:
        raise ValueError(str(error).removeprefix("budget.deadline: ")) from None
    return text
