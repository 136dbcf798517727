"""One process's confinement, entered by the process itself right after the fork, before it reads anything.

Promises: ``enter`` returns only with every layer in place, or raises. A jail is the first process of its own process-id
namespace: when it ends, for whatever cause, the kernel ends everything it started before anyone is told. It has a
private file system view with an empty, bounded /tmp and no /proc, no capability, no way to get one, and no system call
it does not need.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Sequence

from . import seccomp
from .limits import Limits

ROOT, USER, UNSAFE = "root", "user", "unsafe"
"""Modes. Started by root: a jail changes to a user id nobody else has. By an ordinary user: ids are mapped to nobody in
a user namespace. Unsafe: no namespaces, where bubblewrap is not to be had."""

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
_NOSUID, _NODEV = 2, 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522
_OPEN_FILES = 64
_INODES = 1_024
"""Files in /tmp: each takes kernel memory, an empty one too."""

_libc = ctypes.CDLL(None, use_errno=True)


def fork(mode: str, me: int) -> int:
    """Fork; the child is the first process of a new process-id namespace. ``me``: a pidfd of this process.

    Raises OSError in the parent.
    """
    if mode == UNSAFE:
        return os.fork()
    _check(_libc.unshare(_NEWPID), "unshare")
    pid = -1
    try:
        pid = os.fork()
    finally:
        # A process may leave its own namespace for its children once: come back to it for the next time.
        if pid != 0:
            _libc.setns(me, _NEWPID)
    return pid


def enter(mode: str, limits: Limits, uid: int, fds: Sequence[int]) -> None:
    """Confine this process for good. ``fds[i]`` becomes descriptor ``i``; all others are closed. Raises OSError."""
    _keep_only(fds)
    os.setsid()
    os.environ.clear()
    if mode == UNSAFE:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        _check(_libc.unshare(_NEWNS | _NEWIPC), "unshare")
        options = f"size={limits.disk_mb}m,nr_inodes={_INODES},mode=1777".encode()
        _check(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _NOSUID | _NODEV, options), "mount /tmp")
        os.chdir("/tmp")  # noqa: S108 - the sandbox's own
        if mode == ROOT:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if limits.processes > 1:
            # The limit on processes counts a user id's processes within a user namespace: not those of other jails.
            _check(_libc.unshare(_NEWUSER), "unshare user")
        _drop_capabilities()
    _limit(mode, limits)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    seccomp.install(seccomp.program(limits.processes))


def _keep_only(fds: Sequence[int]) -> None:
    # First out of the way of 0, 1, 2, ..., then into place: a source may be another's target.
    above = max(*fds, len(fds)) + 1
    moved = []
    for fd in fds:
        above = os.dup2(fd, above) + 1
        moved.append(above - 1)
    for place, fd in enumerate(moved):
        os.dup2(fd, place)
    os.closerange(len(fds), _highest_open())


def _highest_open() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # closerange is one system call on Linux, however large the range.
    return 2**20 if soft == resource.RLIM_INFINITY else max(soft, 2**16)


def _limit(mode: str, limits: Limits) -> None:
    if mode != UNSAFE:
        # Without a user namespace all processes of our user would count.
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.processes, limits.processes))
    bounds = {
        resource.RLIMIT_AS: limits.process_bytes,
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_FSIZE: max(limits.disk_mb * 2**20, limits.output_kb * 2**10),
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for which, bound in bounds.items():
        resource.setrlimit(which, (bound, bound))


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, none), "capset")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, f"{what}: {os.strerror(number)}")
