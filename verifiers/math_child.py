"""The process in which SymPy runs: one comparison at a time, and nothing to lose.

Run as a script by ``math_equal``; imports nothing of ours. Speaks JSON, one object a line: after start
``{"ready": true}`` or ``{"failed": why}``; then for each ``{"answer", "reference", "seconds"}`` on standard input one
``{"equal": bool}`` or ``{"error": why}`` on standard output.

Promises to be gone soon after its parent, however that died and whatever SymPy is doing: its input ends (idle), the
kernel signals the parent's death (Linux), and the kernel ends it once a comparison has used up its processor time.
"""

from __future__ import annotations

import ctypes
import json
import logging
import math
import os
import resource
import signal
import sys
from typing import Any, TextIO

MEMORY_BYTES = 3 * 2**30
"""Address space: SymPy's imports need well under 1 GiB, and ``9^{9^{9}}`` written out would take the machine."""
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve comparisons until standard input ends."""
    answers = _private_stdout()
    _bind_to_parent()
    try:
        _load()
    except ImportError as error:
        _say(answers, {"failed": f"{type(error).__name__}: {error}"})
        return
    _say(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        _limit_processor(request["seconds"])
        _say(answers, compare(request["answer"], request["reference"]))


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


def _private_stdout() -> TextIO:
    """Standard output for us alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _bind_to_parent() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # macOS does not enforce an address-space limit and has no parent-death signal: input's end and processor
        # time must do there.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_processor(seconds: float) -> None:
    """Let this process use ``seconds`` more of processor time, rounded up, and a second of grace."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
