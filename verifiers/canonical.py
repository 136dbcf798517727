"""One spelling for every answer, so that answers that mean the same are one vote.

Promises: ``canonical`` never raises, is idempotent, is exact (no floats) and does bounded work on hostile text. Two
different integers never share a form. Numbers up to ``MAX_NUMBER`` characters and ``MAX_EXPONENT`` are understood;
anything past that is compared as text, because ``1e999999999`` written out would not fit in memory.

The canonical form of a number is that of the exact rational it denotes: the integer's digits; a decimal where it ends
within ``MAX_PLACES`` places (``1/2``, ``0.50`` and ``\\frac{1}{2}`` are ``0.5``); else the reduced fraction (``2/6`` is
``1/3``). Currency and percent signs are units and are dropped: ``50%`` is ``50``, not ``0.5``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from pipeline.spec import AnswerSpec

Canonical = Callable[[str | None], str | None]

MAX_NUMBER = 200
"""Characters of a number we parse. Sums, products and ``str`` then stay under Python's own limit of 4,300 digits."""
MAX_EXPONENT = 200
MAX_PLACES = 12
"""Decimal places up to which a decimal reads better than a fraction."""
MAX_TEXT = 2_000
"""Wrappers are peeled one at a time, each a pass over the text; past this length text is compared as it stands."""

_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = rf"[-+]?{_DECIMAL}"
_NUMBER = re.compile(
    rf"""
    [$€£]?\ ?(?P<sign>[-+]?)\ ?[$€£]?\ ?
    (?:
        \\[dtc]?frac\ ?\{{\ ?(?P<a>{_SIGNED})\ ?\}}\ ?\{{\ ?(?P<b>{_SIGNED})\ ?\}}
      | \\[dtc]?frac\ ?(?P<a1>[0-9])\ ?(?P<b1>[0-9])
      | (?P<over>{_DECIMAL})\ ?/\ ?(?P<under>{_DECIMAL})
      | (?P<mantissa>{_DECIMAL})
        (?:[eE](?P<e>[-+]?[0-9]+) | \ ?(?:×|x|\*|\\times|\\cdot)\ ?10\ ?\^\ ?(?:(?P<p>[0-9])|\{{(?P<q>[-+]?[0-9]+)\}}))?
    )
    \ ?%?
    """,
    re.VERBOSE,
)
_SPELLINGS = ((r"\!", ""), (r"\,", ""), ("{,}", ","), (r"\$", "$"), (r"\%", "%"), ("–", "-"), ("－", "-"), ("﹣", "-"))
_WRAPPER = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|textrm|mathrm|mathbf|mbox) ?\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LETTER = re.compile(r"\( ?(\w) ?\)")
_EXPRESSION = re.compile(r"[\\^_={}+*<>]")


def as_number(text: str) -> Fraction | None:
    """The exact rational that ``text`` spells, or None where it is no number, too long, or divides by zero."""
    text = text.strip()
    if len(text) > MAX_NUMBER:
        return None
    text = text.replace("−", "-")
    for spelling, plain in _SPELLINGS:
        text = text.replace(spelling, plain)
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    over = found["a"] or found["a1"] or found["over"]
    if over is not None:
        under = _rational(found["b"] or found["b1"] or found["under"])
        if under == 0:
            return None
        value = _rational(over) / under
    else:
        exponent = int(found["e"] or found["p"] or found["q"] or 0)
        if abs(exponent) > MAX_EXPONENT:
            return None
        value = _rational(found["mantissa"]) * Fraction(10) ** exponent
    return -value if found["sign"] == "-" else value


def canonical(answer: str | None) -> str | None:
    """The form under which an answer votes; None for None and for blank text.

    Text is unwrapped (``$…$``, ``\\boxed{…}``, ``\\text{…}``, a full stop at the end), its white space collapsed, and
    its case folded unless case carries meaning: a lone letter, ``(B)`` included, is a choice or a variable, and text
    with operators or LaTeX commands is an expression.
    """
    if answer is None:
        return None
    text = _unwrap(" ".join(answer.replace("−", "-").split()))
    if not text:
        return None
    value = as_number(text)
    if value is not None:
        return _spell(value)
    if len(text) == 1 or _EXPRESSION.search(text):
        return text
    return text.casefold()


def canonical_for(spec: AnswerSpec) -> Canonical:
    """The canonicaliser for answers taken as ``spec`` says; the reference goes through the same one.

    Code keeps every character but blank lines around it. A JSON value is a number or kept as it is. A choice is the
    allowed letter itself. Everything else is ``canonical``.
    """
    if spec.extract == "code":
        return _code
    if spec.extract == "json":
        return _json
    if spec.extract == "choice":
        return _choice(spec.choices)
    return canonical


def _code(answer: str | None) -> str | None:
    # Not strip(): the first line's indentation is part of a program.
    return (answer or "").rstrip().lstrip("\r\n") or None


def _json(answer: str | None) -> str | None:
    value = as_number(answer or "")
    return _spell(value) if value is not None else (answer or "").strip() or None


def _choice(choices: str) -> Canonical:
    letters = {letter.casefold(): letter for letter in choices}

    def canonical_choice(answer: str | None) -> str | None:
        plain = canonical(answer)
        return None if plain is None else letters.get(plain.casefold(), plain)

    return canonical_choice


def _rational(decimal: str) -> Fraction:
    return Fraction(decimal.replace(",", ""))


def _spell(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10**MAX_PLACES
    if scaled.denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(scaled.numerator)).rjust(MAX_PLACES + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-MAX_PLACES]}.{digits[-MAX_PLACES:].rstrip('0')}"


def _unwrap(text: str) -> str:
    if len(text) > MAX_TEXT:
        return text
    while True:
        peeled = _peel(text).strip()
        if peeled == text:
            return text
        text = peeled


def _peel(text: str) -> str:
    """``text`` without its outermost wrapper, or unchanged."""
    if text.endswith("."):
        return text[:-1]
    for left, right in (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        inner = text[len(left) : len(text) - len(right)]
        wrapped = len(text) >= len(left) + len(right) and text.startswith(left) and text.endswith(right)
        # "$5$ and $6$" is two formulas, not one wrapped in dollars.
        if wrapped and left not in inner.strip("$"):
            return inner
    opened = _WRAPPER.match(text)
    if opened and _closing_brace(text, opened.end()) == len(text) - 1:
        return text[opened.end() : -1]
    letter = _LETTER.fullmatch(text)
    return letter[1] if letter else text


def _closing_brace(text: str, start: int) -> int | None:
    """Where the brace closes that was opened just before ``start``; ``\\{`` and ``\\}`` are text. None: nowhere."""
    depth = 1
    for token in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.start()
    return None
