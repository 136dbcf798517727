"""System calls taken away, as classic BPF bytes for x86-64 and aarch64. No library needed.

Promises: a filter first checks the architecture (a call from another one kills the process) and refuses by number with
EPERM what is in the tables below; every number the kernel has added since 2019 is refused with ENOSYS unless it is
named in ``_NEWER``, so that what future kernels bring is refused as well. x32 calls have high numbers too.

Two filters: ``server`` for the process that forks checks, which still needs mounts and namespaces, and ``program``
for candidates and tests, which needs neither, and gets no new processes or threads where its limit is one.
"""

from __future__ import annotations

import ctypes
import platform
import struct

_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7
_ARCHITECTURES = {"x86_64": (0, _X86_64), "aarch64": (1, _AARCH64), "arm64": (1, _AARCH64)}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _EAGAIN, _ENOSYS = 1, 11, 38
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

# Number on x86-64, number on aarch64; None where the architecture has no such call.
_ALWAYS: dict[str, tuple[int | None, int | None]] = {
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # The network. socketpair stays: event loops need it, and it reaches nobody.
    "socket": (41, 198),
    # The kernel's own machinery.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "_sysctl": (156, None),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "lookup_dcookie": (212, 18),
    "io_setup": (206, 0),
    # Memory that no address-space limit counts.
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
_PROGRAM_ONLY: dict[str, tuple[int | None, int | None]] = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
}
_CLONE = (56, 220)
_FORKS = ((57, 58), ())
_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_FIRST_NEWER = 424
# Numbers are the same on both: pidfd_send_signal, pidfd_open, close_range, openat2, faccessat2, epoll_pwait2,
# futex_waitv, fchmodat2. clone3 is not among them: its flags are out of a filter's sight, and libraries fall back.
_NEWER = (424, 434, 436, 437, 439, 441, 449, 452)


class UnsupportedMachine(Exception):
    """No filter is known for this processor architecture."""


def server() -> bytes:
    """The filter of the process that forks checks."""
    return _assemble([_refuse(number, _EPERM) for number in _numbers(_ALWAYS)])


def program(processes: int) -> bytes:
    """The filter of candidates and tests. ``processes`` 1: no further process and no thread."""
    index = _architecture()[0]
    body = [_refuse(number, _EPERM) for number in _numbers(_ALWAYS) + _numbers(_PROGRAM_ONLY)]
    if processes == 1:
        body += [_refuse(number, _EAGAIN) for number in (_CLONE[index], *_FORKS[index])]
    else:
        body.append(_refuse_flags(_CLONE[index], _NAMESPACE_FLAGS))
    return _assemble(body)


def install(code: bytes) -> None:
    """Put this process, and all it starts, under the filter. Needs no_new_privs. Raises OSError."""

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    filled = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filled), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


def _architecture() -> tuple[int, int]:
    try:
        return _ARCHITECTURES[platform.machine()]
    except KeyError:
        raise UnsupportedMachine(f"no seccomp filter for {platform.machine()}: x86_64 and aarch64 only") from None


def _numbers(table: dict[str, tuple[int | None, int | None]]) -> list[int]:
    index = _architecture()[0]
    return [number for both in table.values() if (number := both[index]) is not None]


def _step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, k)


def _refuse(number: int, errno: int) -> bytes:
    return _step(_EQUAL, number, 0, 1) + _step(_RETURN, _ERRNO | errno)


def _refuse_flags(number: int, flags: int) -> bytes:
    return (
        _step(_EQUAL, number, 0, 4)
        + _step(_LOAD, _FIRST_ARGUMENT_AT)
        + _step(_ANY_BIT, flags, 0, 1)
        + _step(_RETURN, _ERRNO | _EPERM)
        + _step(_RETURN, _ALLOW)
    )


def _assemble(body: list[bytes]) -> bytes:
    newer = b"".join(_step(_EQUAL, number, 0, 1) + _step(_RETURN, _ALLOW) for number in _NEWER)
    newer += _step(_RETURN, _ERRNO | _ENOSYS)
    return (
        _step(_LOAD, _ARCHITECTURE_AT)
        + _step(_EQUAL, _architecture()[1], 1, 0)
        + _step(_RETURN, _KILL)
        + _step(_LOAD, _NUMBER_AT)
        + b"".join(body)
        + _step(_AT_LEAST, _FIRST_NEWER, 0, len(newer) // 8)
        + newer
        + _step(_RETURN, _ALLOW)
    )
