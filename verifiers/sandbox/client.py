"""Servers from outside: start them, ask them for one check at a time, end them with all they started.

Promises: a check ends within its limits and a grace, or its server is killed; an answer comes from a server that is
then idle and has no process left but itself; cancelled, a check takes its server along. Servers die with this process,
however it dies: bubblewrap is told to, and a server ends when its socket closes. A ``Sandbox`` belongs to the event
loop that first uses it; ``close`` it before that ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import VerifierError
from verifiers.process_pool import ProcessPool
from verifiers.sandbox import confine, seccomp
from verifiers.sandbox.limits import Limits

START_SECONDS = 60.0
"""Starting takes some 0.1 s on an idle machine, and many times that on a crowded one."""
GRACE_SECONDS = 15.0
"""What a reply may take beyond the check's own limit before the server is taken for dead."""
RECYCLE_AFTER = 5_000
"""Checks before a server is replaced, so that whatever grows in it is bounded."""
LEAVE_SECONDS = 5.0
MAX_VERDICT = 16_384
_MAX_REPLY = 65_536
_FIRST_UID = 1 << 30
"""User ids of jails when root starts them: far above any account's."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: exit ``code`` (negative: the signal), processor seconds, peak memory."""

    code: int
    cpu: float
    memory_kb: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check. ``ended`` by role; ``verdict`` is what the referee or observer wrote, ``printed`` what a script did.

    Both raw. ``report`` is an error's text, said by the program. ``error``: the check could not be made at all.
    """

    ended: dict[str, Ended] = field(default_factory=dict)
    timed_out: bool = False
    seconds: float = 0.0
    verdict: bytes = b""
    printed: bytes = b""
    overflowed: bool = False
    report: bytes = b""
    error: str | None = None


@dataclass(slots=True, eq=False)
class _Server:
    process: Process
    control: socket.socket
    root: int | None
    """A pidfd of the namespace's first process: when it has ended, nothing inside runs any more."""
    uid: int
    served: int = 0

    async def ask(self, request: dict[str, Any], fds: list[int], seconds: float) -> dict[str, Any]:
        """One exchange. Raises ConnectionError, TimeoutError or ValueError where the server is of no use any more."""
        self.served += 1
        socket.send_fds(self.control, [json.dumps(request).encode()], fds)
        return await self.hear(seconds)

    async def hear(self, seconds: float) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            data = await asyncio.get_running_loop().sock_recv(self.control, _MAX_REPLY)
        if not data:
            raise ConnectionResetError("the server ended")
        heard: dict[str, Any] = json.loads(data)
        return heard

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def kill(self) -> None:
        """End everything inside at once; unsafe servers clean up behind themselves when the socket closes."""
        if self.root is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.root, signal.SIGKILL)
        else:
            with suppress(OSError):
                self.control.shutdown(socket.SHUT_RDWR)

    async def end(self) -> None:
        """Kill and wait until nothing is left."""
        self.kill()
        if self.root is not None:
            await _readable(self.root)
            os.close(self.root)
            self.root = None
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        self.control.close()


class Sandbox:
    """At most ``size`` servers, started when needed, each doing one check at a time."""

    def __init__(self, size: int, unsafe: bool = False) -> None:
        self._unsafe = unsafe
        self._pool = ProcessPool[_Server](size, RECYCLE_AFTER, "programs verifier", self._start)

    @property
    def pids(self) -> frozenset[int]:
        """Process ids of the servers now held."""
        return self._pool.pids

    async def calls(self, program: str, tests: dict[str, Any], limits: Limits) -> Outcome:
        """Test a program's functions. ``tests`` is what ``referee.judge`` reads. Raises VerifierError."""
        return await self._call("calls", program, tests, limits)

    async def observe(self, program: str, inputs: dict[str, Any], limits: Limits) -> Outcome:
        """See what a program's functions do. ``inputs`` is what ``observer.observe`` reads. Raises VerifierError."""
        return await self._call("observe", program, inputs, limits)

    async def script(self, program: str, given: str, limits: Limits) -> Outcome:
        """Run a program on standard input. Raises VerifierError."""
        with _Files() as files:
            job, stdin = files.holding(_bytes(program)), files.holding(_bytes(given))
            printed, report = files.taking(limits.output_kb * 1024), files.taking(MAX_VERDICT)
            reply = await self._check("script", [job, stdin, printed, report], limits)
            written = _written(printed)
            full = len(written) >= limits.output_kb * 1024
            return _outcome(reply, printed=written, overflowed=full, report=_written(report))

    async def close(self) -> None:
        """Kill all servers, checks in flight included, and wait until they are gone. Idempotent."""
        await self._pool.close()

    async def _call(self, kind: str, program: str, held: dict[str, Any], limits: Limits) -> Outcome:
        with _Files() as files:
            given = [files.holding(_bytes(program)), files.holding(json.dumps(held).encode())]
            verdict = files.taking(MAX_VERDICT)
            reply = await self._check(kind, [*given, verdict], limits)
            return _outcome(reply, verdict=_written(verdict))

    async def _check(self, kind: str, fds: list[int], limits: Limits) -> dict[str, Any]:
        async with self._pool.turn() as turn:
            try:
                request = {"kind": kind, "uid": turn.member.uid, "limits": limits.to_plain()}
                reply = await turn.member.ask(request, fds, limits.wall_seconds + GRACE_SECONDS)
                turn.healthy = "error" not in reply
            except TimeoutError:
                reply = {"error": "the sandbox did not answer in time"}
            except (OSError, ValueError):
                reply = {"error": "the sandbox was lost while it ran this check"}
        return reply

    async def _start(self) -> _Server:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with _Files() as files, theirs:
            said = files.taking(None)
            told = files.pipe()
            start = confine.unsafe_command()
            if not self._unsafe:
                start = confine.command(files.holding(seccomp.server(), sealed=False), told[1])
            try:
                process = await asyncio.create_subprocess_exec(
                    *start.argv,
                    env=start.environment,
                    stdin=theirs.fileno(),
                    stdout=DEVNULL,
                    stderr=said,
                    pass_fds=() if self._unsafe else files.inherited(said),
                    start_new_session=True,
                )
            except BaseException as error:
                # Cancelled too: asyncio has ended the process then.
                ours.close()
                if not isinstance(error, OSError):
                    raise
                raise VerifierError(f"programs verifier: cannot start {start.argv[0]}: {error}") from error
            server = _Server(process, ours, None, _FIRST_UID + 2 * secrets.randbelow(1 << 28))
            self._pool.hold(server)
            files.close(told[1])
            ready = False
            try:
                theirs.close()
                async with asyncio.timeout(START_SECONDS):
                    if not self._unsafe:
                        server.root = await _root(told[0])
                    if self._pool.closed:
                        server.kill()
                    await server.hear(START_SECONDS)
                ready = True
            except (TimeoutError, OSError, ValueError) as error:
                why = _written(said).decode(errors="replace").strip()[-300:] or str(error)
                raise VerifierError(f"programs verifier: the sandbox does not start: {why}") from error
            finally:
                if not ready:
                    await self._pool.discard(server)
        return server


class _Files:
    """Descriptors of one check, closed together."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop())

    def close(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def holding(self, data: bytes, sealed: bool = True) -> int:
        """A file in memory that nobody can change."""
        fd = self._memory()
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
        if sealed:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        return fd

    def taking(self, size: int | None) -> int:
        """A file in memory that takes at most ``size`` bytes: what a jail writes past them is refused."""
        fd = self._memory()
        if size is not None:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return fd

    def pipe(self) -> tuple[int, int]:
        """A pipe: read end, write end."""
        ends = os.pipe()
        self._open += ends
        os.set_blocking(ends[0], False)
        return ends

    def inherited(self, *without: int) -> Collection[int]:
        return tuple(fd for fd in self._open if fd not in without)

    def _memory(self) -> int:
        fd = os.memfd_create("check", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._open.append(fd)
        return fd


def _outcome(reply: dict[str, Any], **more: Any) -> Outcome:
    if "error" in reply:
        return Outcome(error=str(reply["error"]))
    ended = {role: Ended(**one) for role, one in reply["ended"].items()}
    return Outcome(ended, bool(reply["timed_out"]), float(reply["seconds"]), **more)


def _written(fd: int) -> bytes:
    """What was written: the file's position is shared with whoever wrote."""
    size = os.fstat(fd).st_size
    return os.pread(fd, min(size, os.lseek(fd, 0, os.SEEK_CUR)), 0)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


async def _root(info: int) -> int:
    """A pidfd of the process bubblewrap says it started. Raises ValueError where it says nothing."""
    data = b""
    while True:
        await _readable(info)
        part = os.read(info, 4_096)
        data += part
        with suppress(ValueError):
            return os.pidfd_open(int(json.loads(data)["child-pid"]))
        if not part:
            raise ValueError("bubblewrap ended before it started anything")


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, done)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
