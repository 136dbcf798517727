"""How commands end, and how those that spend are interrupted: exit codes, messages, signals.

Loads nothing heavy: every command goes through here.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pipeline.driver import Listen
    from pipeline.progress import Progress

FAILED, USAGE, INTERRUPTED = 1, 2, 130

T = TypeVar("T")


def failed(message: str, kind: str, code: int, as_json: bool, hint: str = "", prefix: str = "error: ") -> int:
    """Say what went wrong, to programs too; returns ``code``."""
    click.echo(f"{prefix}{message}{hint}", err=True)
    if as_json:
        print_json({"error": message, "kind": kind})
    return code


def interrupted(saved: str, again: str, as_json: bool) -> int:
    """Say where what was paid for is, and how to go on."""
    message = f"interrupted; what was paid for is saved in {saved}. To go on, run: {again}"
    return failed(message, "KeyboardInterrupt", INTERRUPTED, as_json, prefix="")


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(value, allow_nan=False, ensure_ascii=False))


def watched(work: Callable[[Listen], T]) -> T:
    """Do work that spends, its progress on standard error. Raises KeyboardInterrupt for SIGTERM too."""
    from pipeline.progress import Reporter

    with Reporter(sys.stderr) as reporter, _terminable() as take_sigterm:

        def listen(progress: Progress) -> None:
            # Ray takes the handler for itself when it starts.
            take_sigterm()
            reporter(progress)

        try:
            return work(listen)
        except SystemExit as end:
            # Ray's own handler, in the moments it is installed, exits with the signal's number.
            if end.code != signal.SIGTERM:
                raise
            raise KeyboardInterrupt from None


@contextmanager
def _terminable() -> Iterator[Callable[[], None]]:
    """While open, SIGTERM interrupts like Ctrl-C; call what it gives to take the signal back from others."""
    if threading.current_thread() is not threading.main_thread():
        # Python lets the main thread alone handle signals.
        yield lambda: None
        return

    def take() -> None:
        if signal.getsignal(signal.SIGTERM) is not signal.default_int_handler:
            signal.signal(signal.SIGTERM, signal.default_int_handler)

    before = signal.getsignal(signal.SIGTERM)
    take()
    try:
        yield take
    finally:
        signal.signal(signal.SIGTERM, before)
