"""The process in which SymPy runs: one comparison at a time, and nothing to lose.

Run as a script by ``math_equal``; limits and protocol are ``child_limits``'s. Answers ``{"answer", "reference",
"seconds"}`` with ``{"equal": bool}`` or ``{"error": why}``.
"""

from __future__ import annotations

import logging
from typing import Any

from verifiers.child_limits import serve


def main() -> None:
    """Serve comparisons until standard input ends."""
    serve(_load, lambda request: compare(request["answer"], request["reference"]))


def compare(answer: str, reference: str) -> dict[str, Any]:
    """Is ``answer`` the same mathematical object as ``reference``? May never return: that is what the parent is for."""
    from math_verify import verify

    try:
        gold = _parse(reference)
        if not gold:
            return {"error": "the reference is no mathematical expression that math-verify can parse"}
        # Its own time-outs round to seconds, use the alarm signal, and do not stop one long multiplication.
        return {"equal": bool(verify(gold, _parse(answer), timeout_seconds=None, raise_on_error=True))}
    except (MemoryError, RecursionError) as error:
        return {"error": f"{type(error).__name__} while comparing"}
    except Exception:
        # SymPy raises whatever it likes on expressions that make no sense beside the reference: not equal.
        return {"equal": False}


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    formula = text if "$" in text or r"\boxed" in text or r"\(" in text or r"\[" in text else f"${text}$"
    parsed: list[Any] = parse(formula, parsing_timeout=None)
    return parsed


def _load() -> None:
    """Import SymPy and build math-verify's parsers now, so that no comparison pays for it."""
    logging.disable(logging.CRITICAL)
    compare("x+1", "1+x")


if __name__ == "__main__":
    main()
