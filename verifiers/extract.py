"""Take the answer out of a completion.

Promises: an extractor never raises on any text, returns None where there is no answer, and does work that grows about
linearly with the text: completions are hostile. The user's own regular expression cannot be held to that, so it runs
under a time limit. Extractors return the answer as it was written; ``canonical`` gives it its one spelling.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import regex  # type: ignore[import-untyped]

from pipeline.errors import SpecError
from pipeline.spec import AnswerSpec

Extractor = Callable[[str], str | None]

REGEX_SECONDS = 1.0
"""A user's pattern that needs longer on one completion is backtracking without end."""
JSON_DEPTH = 8
"""How far to look inside brace pairs that are not JSON, for example prose that quotes an object."""
TAIL = 400
"""Characters at the end of a completion in which a lone letter may stand as the choice."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_PLAIN = rf"(?:{_DIGITS}(?:\.[0-9]+)?|(?<![.0-9])\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]}}])[-+])?
    (?:
        \\[dtc]?frac\{{(?P<over>[-+]?{_PLAIN})\}}\{{(?P<under>[-+]?{_PLAIN})\}}
      | (?P<glued>(?<=[^\W0-9]))?(?P<plain>{_PLAIN}(?:\ ?/\ ?{_PLAIN})?)
    )
    """,
    re.VERBOSE,
)
_COMMAND = re.compile(r"\\[A-Za-z]{1,12}\Z")
_BOX = re.compile(r"(?P<box>\\(?:boxed|fbox)\s{0,3}\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
# A string's end is optional, so that a lone quote costs one pass, not one from every quote after it.
_JSON_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|[{}]')
_FENCE = re.compile(r"\s*+(?P<marks>`{3,}+|~{3,}+)(?P<info>[^`]*)")


def make_extractor(spec: AnswerSpec) -> Extractor:
    """The extractor ``spec.extract`` names: text to answer, or None.

    Raises:
        SpecError: ``pattern`` is missing or no pattern of the ``regex`` package.
    """
    if spec.extract == "regex":
        return _regex(spec.pattern)
    if spec.extract == "choice":
        return _choice(spec.choices)
    if spec.extract == "json":
        return _json(spec.field or "")
    return {"last_number": last_number, "boxed": last_boxed, "code": last_code, "text": whole_text}[spec.extract]


def last_number(text: str) -> str | None:
    """The last number: sign, thousands commas, decimals, exponent, or a fraction such as 3/4 (kept as one).

    ``1 000`` is two numbers. A percent sign is left behind. A number glued to a word's end (``x2``) counts only where
    there is no other; after a LaTeX command (``\\approx5``) it is free.
    """
    text = text.replace("−", "-").replace("{,}", ",").replace(r"\!", "").replace(r"\,", "")
    free: re.Match[str] | None = None
    glued: re.Match[str] | None = None
    for found in _NUMBER.finditer(text):
        if found["glued"] is None or _COMMAND.search(text, max(0, found.start() - 13), found.start()):
            free = found
        else:
            glued = found
    last = free or glued
    if last is None:
        return None
    sign = "-" if last["sign"] == "-" else ""
    if last["over"] is not None:
        return f"{sign}{last['over']}/{last['under']}"
    return sign + last["plain"].replace(" ", "")


def last_boxed(text: str) -> str | None:
    r"""What the last balanced, non-blank ``\boxed{…}`` or ``\fbox{…}`` holds; of nested boxes, the innermost."""
    answer: str | None = None
    answer_start = -1
    opened: list[tuple[bool, int]] = []
    for token in _BOX.finditer(text):
        if token["box"] or token["open"]:
            opened.append((token["box"] is not None, token.end()))
        elif token["close"] and opened:
            boxed, start = opened.pop()
            if boxed and start > answer_start and text[start : token.start()].strip():
                answer, answer_start = text[start : token.start()].strip(), start
    return answer


def last_code(text: str) -> str | None:
    """What the last closed fenced block holds (CommonMark 4.5), without its fences; None where there is none."""
    block: str | None = None
    lines: list[str] = []
    fence: str | None = None
    for line in text.split("\n"):
        mark = _FENCE.fullmatch(line.rstrip())
        if fence is None:
            if mark:
                fence, lines = mark["marks"], []
        elif mark and mark["marks"].startswith(fence) and not mark["info"].strip():
            block, fence = "\n".join(lines), None
        else:
            lines.append(line)
    return block if block and block.strip() else None


def whole_text(text: str) -> str | None:
    """All of it, stripped."""
    return text.strip() or None


def _regex(pattern: str | None) -> Extractor:
    try:
        compiled = regex.compile(pattern or "")
    except regex.error as error:
        raise SpecError(f"answer.pattern: {pattern!r} is not a regular expression: {error}") from None
    if not pattern:
        raise SpecError("answer.pattern: required with extract: regex, but missing; its first group is the answer")
    group = min(1, compiled.groups)

    def extract(text: str) -> str | None:
        try:
            found = _last(compiled.finditer(text, timeout=REGEX_SECONDS))
        except TimeoutError:
            return None
        return None if found is None else (found[group] or "").strip() or None

    return extract


def _choice(choices: str) -> Extractor:
    letters = {letter.casefold(): letter for letter in choices if not letter.isspace()}
    if not letters:
        raise SpecError(f"answer.choices: {choices!r} names no letter; write the allowed letters, like ABCD")
    cases = {case for letter in choices for case in (letter, letter.lower(), letter.upper())}
    # Only in brackets is a small letter surely a choice: "the answer is a bit …".
    any_case = f"[{re.escape(''.join(sorted(case for case in cases if case.casefold() in letters)))}]"
    bare = f"[{re.escape(''.join(letters.values()))}]"
    letter = rf"(?:[(\[] ?(?P<round>{any_case}) ?[)\]]|(?P<bare>{bare})(?![\w'’]))"
    around = r"[\s*_$`\"]{0,8}"
    stated = re.compile(
        r"(?i:\banswer)[*_]{0,3}\s{0,3}(?:(?i:is|would be|should be|must be)\s{0,3}:?|[:=])"
        rf"{around}(?i:(?:option|choice|letter)\s{{1,3}})?(?:\\[a-z]{{1,8}}\{{){{0,3}}{around}{letter}"
    )
    boxed = re.compile(rf"(?:\\[a-z]{{1,8}}\{{){{0,2}}[(\[]? ?(?P<round>{any_case})(?P<bare>)(?=[ )\].:}}]|\Z)")
    alone = re.compile(rf"(?:\A|[\s*_$`\"{{]){letter}[.)\]\s*_$`\"}}]*\Z")

    def extract(text: str) -> str | None:
        found = (
            _last(stated.finditer(text)) or boxed.match(last_boxed(text) or "") or alone.search(text.rstrip()[-TAIL:])
        )
        return letters[(found["round"] or found["bare"]).casefold()] if found else None

    return extract


def _last(matches: Iterator[Any]) -> Any:
    """The last match, or None."""
    return next(iter(deque(matches, maxlen=1)), None)


def _json(path: str) -> Extractor:
    def extract(text: str) -> str | None:
        value: Any = last_object(text)
        for key in path.split("."):
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdecimal() and len(key) < 10 and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        if value is None:
            return None
        answer = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
        # JSON can escape half a surrogate pair, which no file can hold.
        return answer.encode("utf-8", "replace").decode("utf-8").strip() or None

    return extract


def last_object(text: str) -> dict[str, Any] | None:
    """The last outermost JSON object in ``text``. Brace pairs nest, so each level costs one pass over the text."""
    for start, stop in _outermost_last(_pairs(text)):
        try:
            value = json.loads(text[start:stop])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def _pairs(text: str) -> list[tuple[int, int]]:
    """All balanced brace pairs ``[start, stop)`` in order of their end. Braces in strings inside a pair are text."""
    pairs: list[tuple[int, int]] = []
    opened: list[int] = []
    position = text.find("{")
    while position >= 0 and (token := _JSON_TOKEN.search(text, position)) is not None:
        position = token.end()
        if token[0] == "{":
            opened.append(token.start())
        elif token[0] == "}":
            pairs.append((opened.pop(), position))
        if not opened:
            # Quotes in the prose between two objects open no string.
            position = text.find("{", position)
    return pairs


def _outermost_last(pairs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Pairs from the last to the first, an outer before its inner ones, none deeper than ``JSON_DEPTH``."""
    around: list[int] = []
    for start, stop in reversed(pairs):
        while around and around[-1] >= stop:
            around.pop()
        if len(around) < JSON_DEPTH:
            yield start, stop
        around.append(start)
