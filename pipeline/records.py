"""The records of a run: the only place a column is named.

Plain frozen dataclasses; ``columns_of`` gives their Arrow schema, ``to_row`` / ``from_row`` convert. All columns are
flat except ``Sample.verdicts`` (list of struct) and ``payload`` (the user's other columns as one JSON object, so that
shards of a dataset whose optional columns vary still share one schema). Importing this module loads neither torch,
vllm nor ray.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")


class StopReason(StrEnum):
    """Why a question stopped."""

    SETTLED = "settled"
    """The vote cannot plausibly change."""
    VERIFIED = "verified"
    """A verifier passed a sample."""
    CAPPED = "capped"
    """The configured maximum of samples was drawn."""
    HOPELESS = "hopeless"
    """More samples would not help: no sample parses, or the vote stays flat."""
    EXHAUSTED = "exhausted"
    """The budget paid for others instead; best effort given."""
    FAILED = "failed"
    """No answer could be produced; the row is in ``dead_letter``."""


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Item:
    """One question. Exactly one of ``prompt`` and ``messages`` is set. ``stakes`` ≥ 0 multiplies its value.

    ``given``: what a strategy hands a verifier beside the row, texts in the verifier's own words (tests a model wrote).
    """

    item_id: str
    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    reference: str | None = None
    stakes: float = 1.0
    payload: str = "{}"
    given: tuple[str, ...] = ()

    @property
    def given_key(self) -> str | None:
        """A hash of ``given`` that fits in a column; None where nothing is."""
        if not self.given:
            return None
        return hashlib.sha256(json.dumps(self.given).encode()).hexdigest()[:16]


CUT = ("abort", "cut", "interrupted")
"""``Sample.finish_reason`` of generations that did not come to their own end."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one verifier says of one sample: ``score`` in [0, 1], or None with ``error``. ``tokens``: what it cost.

    ``given``: the key of what it was given beside the row (``Item.given_key``); another key is another check.
    """

    verifier: str
    score: float | None = None
    error: str | None = None
    tokens: int = 0
    detail: str | None = None
    given: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One generation that was paid for, aborted ones included.

    ``answer`` is canonical, or None where nothing parses. ``prompt_tokens`` counts all prompt tokens, of which
    ``cached_prompt_tokens`` were not computed. ``mean_logprob`` is the mean log-probability (nats) of the chosen
    tokens; ``min_group_confidence`` is DeepConf's lowest group confidence (Fu et al. 2025, §3.1), where measured,
    and NaN where a token's is not finite. ``finish_reason`` is stop, length, abort (the strategy cut it), cut (its
    confidence fell below the bar it was asked under) or interrupted (the run was stopped). ``attempt`` counts from 0;
    ``writer`` names the worker life that paid. ``model``: which of the job's ``models`` it came from; empty: the job's
    ``model``. ``origin``: id of the run that generated it, where that was another (the job's ``reuse``); empty: this
    one did. A prompt charged with samples of another run counts as cached from then on.
    """

    item_id: str
    sample_index: int
    prompt_key: str
    text: str
    answer: str | None = None
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    mean_logprob: float | None = None
    min_group_confidence: float | None = None
    finish_reason: str = "stop"
    verdicts: tuple[Verdict, ...] = ()
    attempt: int = 0
    seconds: float = 0.0
    parent: int | None = None
    writer: str = ""
    model: str = ""
    origin: str = ""

    @property
    def billed_tokens(self) -> int:
        """Tokens charged to the budget for generation: uncached prompt + completion."""
        return self.prompt_tokens - self.cached_prompt_tokens + self.completion_tokens

    @property
    def verifier_tokens(self) -> int:
        """Tokens charged to the budget for checking this sample."""
        return sum(verdict.tokens for verdict in self.verdicts)

    @property
    def aborted(self) -> bool:
        """True where generation was cut; such a sample is paid for and never votes."""
        return self.finish_reason in CUT


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdicts on one sample as the journal keeps them, from while it was open. ``writer``: the worker life."""

    item_id: str
    prompt_key: str
    sample_index: int
    verdicts: tuple[Verdict, ...]
    writer: str = ""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One verdict on one sample of a run that is over, by a verifier the run did not have (``ponder verify``).

    ``item_id``, ``prompt_key`` and ``sample_index`` name the sample in ``samples``; the rest is the ``Verdict``.
    """

    item_id: str
    prompt_key: str
    sample_index: int
    verifier: str
    score: float | None = None
    error: str | None = None
    tokens: int = 0
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided for a question by what others had taught, as the journal keeps it."""

    item_id: str
    name: str
    choice: str
    writer: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered question. ``confidence`` is the posterior that the answer leads; ``votes`` those it received.

    ``price`` is the market's price (value per token) at the stop and ``next_value`` what one more sample was worth
    per token there, so that a later top-up can find the best questions without redoing the run. ``samples`` and
    ``tokens`` count all that was paid for, the audit's ``audit_samples`` included. ``audit_answer`` is the vote at the
    cap, of an audited question; ``flipped`` whether it differs from ``answer``, None where no audit came to its end;
    ``audit_correct`` is to it what ``correct`` is to ``answer``.
    """

    item_id: str
    answer: str | None
    text: str | None
    stop_reason: StopReason
    confidence: float
    votes: int
    samples: int
    tokens: int
    verifier_tokens: int = 0
    price: float = 0.0
    next_value: float = 0.0
    audit_samples: int = 0
    audit_answer: str | None = None
    flipped: bool | None = None
    audit_correct: bool | None = None
    correct: bool | None = None
    reference: str | None = None
    payload: str = "{}"


@dataclass(frozen=True, slots=True)
class Decision:
    """One budget decision about one question: what was decided, on what evidence, at which price.

    ``facts``: what the strategy found on the way (``Solution.facts``), as one JSON object.
    """

    item_id: str
    samples: int
    action: str
    value: float
    price: float
    p_lead: float
    seconds: float = 0.0
    facts: str = "{}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A question that could not be answered: ``boundary`` crossed, ``error`` as a person reads it, ``attempts``."""

    item_id: str
    boundary: str
    error: str
    attempts: int = 0
    samples: int = 0
    tokens: int = 0
    payload: str = "{}"


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows ``[start, stop)`` of one source file (row numbers count parsed records of that file from 0)."""

    path: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work and of commit. ``shard_id`` is dense from 0 and the same for every plan of the same data."""

    shard_id: int
    items: int
    segments: tuple[Segment, ...] = field(default=())


def columns_of(record: type) -> Any:
    """The ``pyarrow.Schema`` of a record class, read from its annotations. Non-optional fields are not nullable."""
    import pyarrow as pa

    hints = typing.get_type_hints(record)
    return pa.schema([_arrow_field(f.name, hints[f.name]) for f in dataclasses.fields(record)])


def to_row(record: Any) -> dict[str, Any]:
    """A record as the dict Arrow takes: enums become strings, nested records dicts, tuples lists."""
    return {f.name: _plain(getattr(record, f.name)) for f in dataclasses.fields(record)}


def from_row(record: type[T], row: dict[str, Any]) -> T:
    """The inverse of ``to_row``; columns the record does not know are ignored, so that old readers read new files."""
    hints = _hints(record)
    known = {name: _revive(hints[name], value) for name, value in row.items() if name in hints}
    return record(**known)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(record: type) -> dict[str, Any]:
    if record not in _HINTS:
        _HINTS[record] = typing.get_type_hints(record)
    return _HINTS[record]


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_row(value)
    return value


def _strip_optional(hint: Any) -> tuple[Any, bool]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return parts[0], True
    return hint, False


def _revive(hint: Any, value: Any) -> Any:
    hint, _ = _strip_optional(hint)
    if value is None:
        return None
    if typing.get_origin(hint) is tuple:
        part = typing.get_args(hint)[0]
        return tuple(_revive(part, each) for each in value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if dataclasses.is_dataclass(hint):
        return from_row(typing.cast(type, hint), value)
    return value


def _arrow_field(name: str, hint: Any) -> Any:
    import pyarrow as pa

    hint, optional = _strip_optional(hint)
    return pa.field(name, _arrow_type(hint), nullable=optional)


def _arrow_type(hint: Any) -> Any:
    import pyarrow as pa

    if typing.get_origin(hint) is tuple:
        return pa.list_(pa.field("item", _arrow_type(typing.get_args(hint)[0]), nullable=False))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return pa.string()
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return pa.struct([_arrow_field(f.name, hints[f.name]) for f in dataclasses.fields(hint)])
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint]
