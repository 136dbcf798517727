"""The warm server: Python started once inside the sandbox, forking a fresh jail for every candidate and every referee
or observer.

Speaks over its standard input, a Unix socket of whole messages: a JSON request with descriptors attached, one reply
each, one check at a time. Programs, tests, inputs and verdicts travel in the attached files, which only the jail they
are meant for reads: this process never holds them, so what it forks cannot find another's in its memory.

Promises: when a reply is sent, every process of the check is gone; when the socket closes, so is everything. It runs
nobody's code, reads no file but Python's own, and knows no path outside.

What warmth gives up: all checks of one server see the same kernel namespaces for network (none but loopback, and no
sockets), host name and root file system (read only), and the same hash seed; started by an ordinary user also the same
user id, which the namespaces for processes and files keep apart.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from . import candidate, jail, observer, referee
from .limits import REFEREE_MEMORY_MB, Limits

MODULES = (
    "bisect",
    "collections",
    "copy",
    "datetime",
    "decimal",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "queue",
    "random",
    "re",
    "statistics",
    "string",
    "threading",
    "typing",
)
"""What programs import most, loaded once."""
MAX_REQUEST = 16_384
MAX_FDS = 8
_PR_SET_CHILD_SUBREAPER = 36
_CRASHED = 70


class Closed(Exception):
    """Our user is gone."""


def main(mode: str) -> None:
    """Serve until the socket closes."""
    control = _take_control()
    if mode == jail.UNSAFE:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for name in MODULES:
        importlib.import_module(name)
    me = os.pidfd_open(os.getpid())
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": True}).encode())
    while True:
        data, fds, _, _ = socket.recv_fds(control, MAX_REQUEST, MAX_FDS)
        if not data:
            return
        try:
            reply = Check(mode, me, control, json.loads(data), fds).run()
        except Closed:
            return
        except OSError as error:
            reply = {"error": f"the check could not be confined: {error}"}
        control.send(json.dumps(reply).encode())


class Check:
    """One check: its processes from fork to the last one's end."""

    def __init__(self, mode: str, me: int, control: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        self._mode, self._me, self._control, self._fds = mode, me, control, list(fds)
        self._uid = int(request["uid"])
        self._kind = request["kind"]
        self._limits = Limits(**request["limits"])
        self._running: dict[int, tuple[int, str]] = {}
        """By pidfd: process id and role."""
        self._ended: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        """The reply. Raises Closed; OSError where a process cannot be started. Nothing is left either way."""
        began = time.monotonic()
        try:
            self._start()
            self._close()
            timed_out = not self._wait(began + self._limits.wall_seconds)
        finally:
            self._close()
            self._kill()
        return {"ended": self._ended, "timed_out": timed_out, "seconds": time.monotonic() - began}

    def _start(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        self._fds.append(null)
        if self._kind == "script":
            job, given, printed, report = self._fds[:4]
            self._fork("candidate", (given, printed, null, job, report), self._limits, _script)
            return
        job, tests, verdict = self._fds[:3]
        calls_out, calls_in = os.pipe()
        replies_out, replies_in = os.pipe()
        self._fds += [calls_out, calls_in, replies_out, replies_in]
        self._fork("candidate", (null, null, null, job, calls_out, replies_in), self._limits, _calls)
        bounds = Limits(self._limits.wall_seconds, self._limits.cpu_seconds, REFEREE_MEMORY_MB)
        body = _observer if self._kind == "observe" else _referee
        self._fork("referee", (null, null, null, tests, verdict, calls_in, replies_out), bounds, body)

    def _fork(self, role: str, fds: tuple[int, ...], limits: Limits, body: Callable[[], int]) -> None:
        pid = jail.fork(self._mode, self._me)
        if pid == 0:
            _inside(self._mode, limits, self._uid + (role == "referee"), fds, body)
        self._running[os.pidfd_open(pid)] = (pid, role)

    def _wait(self, deadline: float) -> bool:
        """Until the process that decides has ended. False: it is out of time. Raises Closed."""
        decides = "candidate" if self._kind == "script" else "referee"
        poll = select.poll()
        poll.register(self._control, select.POLLIN | select.POLLHUP)
        for handle in self._running:
            poll.register(handle, select.POLLIN)
        while decides not in self._ended:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for fd, _ in poll.poll(max(1, left * 1_000)):
                if fd == self._control.fileno():
                    raise Closed
                poll.unregister(fd)
                self._reap(fd)
        return True

    def _kill(self) -> None:
        """End what still runs. A jail's first process takes its whole namespace along, and is reaped last."""
        for pid, _ in self._running.values():
            os.kill(pid, signal.SIGKILL)
            if self._mode == jail.UNSAFE:
                _kill_group(pid)
        for handle in list(self._running):
            self._reap(handle)
        if self._mode == jail.UNSAFE:
            _sweep()

    def _reap(self, handle: int) -> None:
        pid, role = self._running.pop(handle)
        os.close(handle)
        _, status, used = os.wait4(pid, 0)
        if self._mode == jail.UNSAFE:
            _kill_group(pid)
        self._ended[role] = {
            "code": os.waitstatus_to_exitcode(status),
            "cpu": used.ru_utime + used.ru_stime,
            "memory_kb": used.ru_maxrss,
        }

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _inside(mode: str, limits: Limits, uid: int, fds: tuple[int, ...], body: Callable[[], int]) -> None:
    """The child's whole life."""
    code = _CRASHED
    try:
        gc.enable()
        jail.enter(mode, limits, uid, fds)
        code = body()
    except BaseException:
        code = _CRASHED
    finally:
        os._exit(code)


def _calls() -> int:
    candidate.serve_calls(3, 4, 5)
    return 0


def _script() -> int:
    return candidate.run_script(3, 4)


def _referee() -> int:
    referee.judge(3, 4, 5, 6)
    return 0


def _observer() -> int:
    observer.observe(3, 4, 5, 6)
    return 0


def _take_control() -> socket.socket:
    """The socket that is our standard input, out of the way of 0, 1 and 2."""
    kept = os.dup(0)
    os.set_inheritable(kept, False)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.close(null)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1_024) if soft > 0 else 1_024, hard))
    return socket.socket(fileno=kept)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _sweep() -> None:
    """Unsafe mode: what left its process group has become our child; kill until none is left."""
    while True:
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    mine = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as stat:
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if parent == os.getpid():
                mine.append(int(name))
    return mine


if __name__ == "__main__":
    main(sys.argv[1])
