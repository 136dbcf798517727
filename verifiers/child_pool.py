"""Child processes that do one bounded thing at a time and are killed at their deadline.

Some work cannot be interrupted: one long multiplication, a pattern that backtracks without end. Neither a signal nor a
thread stops it; killing its process does. Promises: an exchange ends within its time and the next one meets a healthy
child; a child is given no credentials; with a child that follows ``child_limits``, none outlives this process.

The protocol is JSON, one object a line: after start ``{"ready": true}`` or ``{"failed": why}``, then one line for each
line. A pool belongs to the event loop that first uses it; ``close`` it before that ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import VerifierError
from verifiers.process_pool import ProcessPool

CHILDREN = 2
START_SECONDS = 120.0
"""Importing SymPy takes about 2 s on an idle machine, and many times that on a crowded one."""
RECYCLE_AFTER = 2_000
"""Exchanges before a child is replaced: caches grow."""
MAX_LINE = 4 * 2**20
"""Bytes of one line a child may say; more is a child gone wrong."""
KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
"""Completions are hostile and libraries evaluate strings: a child is given no credentials."""

ROOT = str(Path(__file__).resolve().parent.parent)


def script(name: str) -> tuple[str, ...]:
    """The command that runs a child script of this folder. -P: the folder must not shadow installed modules."""
    return (sys.executable, "-P", str(Path(__file__).with_name(name)))


class ExchangeFailed(Exception):
    """No reply: time ran out, or the child ended. The message is for a verdict."""


@dataclass(slots=True, eq=False)
class _Child:
    process: Process
    served: int = 0

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One exchange. Raises ConnectionError where the child is gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        await self.process.stdin.drain()
        self.served += 1
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise ConnectionResetError("the child ended")
        heard: dict[str, Any] = json.loads(line)
        return heard

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()

    async def end(self) -> None:
        """Kill it and wait until it and its pipes are gone. Not while an ``ask`` is waiting."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.kill()
        self.process.stdin.close()
        await self.process.wait()
        await self.process.stdout.read()
        with suppress(ConnectionError):
            await self.process.stdin.wait_closed()


class ChildPool:
    """At most ``size`` children, started when needed, each in one exchange at a time.

    ``command`` starts a child that speaks the protocol; ``who`` names it in errors, ``doing`` what an exchange does.
    """

    def __init__(
        self,
        command: Sequence[str],
        who: str,
        doing: str = "check",
        size: int = CHILDREN,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._command = tuple(command)
        self._who, self._doing = who, doing
        self._start_seconds = start_seconds
        self._pool = ProcessPool[_Child](size, RECYCLE_AFTER, who, self._start)

    @property
    def pids(self) -> frozenset[int]:
        """Process ids of the children now held."""
        return self._pool.pids

    async def exchange(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """One reply, within ``seconds`` of wall-clock once it is this request's turn.

        Raises:
            ExchangeFailed: no reply in time, or the child ended.
            VerifierError: no child can be started, or the pool is closed.
        """
        async with self._pool.turn() as turn:
            try:
                async with asyncio.timeout(seconds):
                    heard = await turn.member.ask(request)
                turn.healthy = True
            except TimeoutError:
                raise ExchangeFailed(f"no result within {seconds:g} s") from None
            except (ConnectionError, ValueError):
                why = "memory or processor limit, or a crash"
                raise ExchangeFailed(f"the {self._doing} took its process down ({why})") from None
        return heard

    async def close(self) -> None:
        """Kill all children, comparisons in flight included, and wait until they are gone. Idempotent."""
        await self._pool.close()

    async def _start(self) -> _Child:
        environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        # Last, so that our folders shadow nothing: a child imports ``verifiers.child_limits``.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), ROOT)))
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, limit=MAX_LINE
            )
        except OSError as error:
            raise VerifierError(f"{self._who}: cannot start {self._command[0]}: {error}") from error
        child = _Child(process)
        self._pool.hold(child)
        if self._pool.closed:
            child.kill()
        ready = False
        try:
            async with asyncio.timeout(self._start_seconds):
                heard = await child.hear()
            if "failed" in heard:
                raise VerifierError(f"{self._who}: what it needs cannot be loaded ({heard['failed']}); reinstall it")
            ready = True
        except TimeoutError:
            raise VerifierError(f"{self._who}: its process was not ready after {self._start_seconds:g} s") from None
        except (ConnectionError, ValueError) as error:
            raise VerifierError(f"{self._who}: its process ended before it was ready: {error}") from error
        finally:
            if not ready:
                await self._pool.discard(child)
        return child
