"""What every child process of ``child_pool`` does: speak the protocol, keep within limits, and die with its parent.

Standard library only. A child is gone soon after its parent, however that died and whatever the child is doing: its
input ends (idle), the kernel signals the parent's death (Linux), and the kernel ends it once a request has used up its
processor time.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

MEMORY_BYTES = 3 * 2**30
"""Address space: SymPy's imports need well under 1 GiB, and ``9^{9^{9}}`` written out would take the machine."""
PR_SET_PDEATHSIG = 1


def serve(load: Callable[[], None], answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """``load`` once, then ``answer`` each request until standard input ends. A request names its ``seconds``."""
    answers = private_stdout()
    bind_to_parent()
    try:
        load()
    except ImportError as error:
        _say(answers, {"failed": f"{type(error).__name__}: {error}"})
        return
    _say(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        _limit_processor(request["seconds"])
        _say(answers, answer(request))


def private_stdout() -> TextIO:
    """Standard output for us alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def bind_to_parent() -> None:
    """Bound memory, write no core files, and end with the parent."""
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
