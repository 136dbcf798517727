"""Sees to it that a process's descendants do not outlive it, however it dies.

vLLM's engine processes survive a SIGKILL of the worker that started them (measured: still spinning ten minutes later),
and Ray's daemons may survive their driver. ``guard`` starts a small process that holds the read end of a pipe; the
kernel closes the write end when the guarded process ends, by whatever cause, and the guardian then kills every
descendant it has seen, each checked by its start time so that a reused process id is never hit.

Standard library only: this file also runs by itself, as ``python -I -S guardian.py PID``.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

# How often the family tree is read: a child that is started and orphaned within one interval is missed.
_INTERVAL = 0.5
# Ray's and vLLM's own orderly shutdown comes first.
_GRACE = 2.0

Process = tuple[int, int]
"""A process id and its start time (clock ticks since boot)."""


def guard(grace: float = _GRACE) -> subprocess.Popen[bytes]:
    """Guard the calling process. The returned handle's ``stdin`` is the life line: keep it, never close it."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter on this very file
        [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), str(grace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,
    )


def parents() -> dict[Process, int]:
    """Every process on this machine with its parent's id."""
    table: dict[Process, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text()
            except OSError:
                continue
            fields = stat.rpartition(")")[2].split()
            if fields[0] != "Z":
                table[(int(name), int(fields[19]))] = int(fields[1])
    return table


def descendants(root: int) -> set[Process]:
    """All processes below ``root``."""
    children: dict[int, list[Process]] = {}
    for process, parent in parents().items():
        children.setdefault(parent, []).append(process)
    found: set[Process] = set()
    frontier = [root]
    while frontier:
        for process in children.get(frontier.pop(), []):
            if process not in found:
                found.add(process)
                frontier.append(process[0])
    return found


def main(root: int, grace: float) -> None:
    """Watch until standard input closes, then end what is left."""
    family: set[Process] = set()
    me = os.getpid()
    # Detached, so that a process group signal meant for the guarded process does not end its guardian first.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while not select.select([0], [], [], _INTERVAL)[0]:
        family |= descendants(root)
    family = {process for process in family if process[0] != me}
    end = time.monotonic() + grace
    while time.monotonic() < end and family & set(parents()):
        time.sleep(0.1)
    # Children of the dead are found through those already known, as long as these still live.
    for process in list(family):
        family |= {below for below in descendants(process[0]) if below[0] != me}
    for pid, started in family & set(parents()):
        if (pid, started) in parents():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
