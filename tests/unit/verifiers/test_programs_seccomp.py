"""The filters, run by a small interpreter of classic BPF: what each lets through, on both architectures."""

from __future__ import annotations

import struct

import pytest

from verifiers.sandbox import seccomp

ALLOW, EPERM, EAGAIN, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x5000B, 0x50026, 0x80000000
X86, ARM = 0xC000003E, 0xC00000B7
NEWUSER = 0x10000000


def run(code: bytes, number: int, architecture: int = X86, first: int = 0) -> int:
    """What the kernel would do with this system call."""
    data = struct.pack("=IIQQ", number, architecture, 0, first)
    steps = list(struct.iter_unpack("=HBBI", code))
    at = value = 0
    while True:
        kind, yes, no, k = steps[at]
        at += 1
        if kind == 0x20:
            (value,) = struct.unpack_from("=I", data, k)
        elif kind == 0x06:
            return int(k)
        else:
            holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[kind]
            at += yes if holds else no


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("platform.machine", lambda: request.param)
    return str(request.param)


CALLS = {
    "x86_64": {"read": 0, "write": 1, "execve": 59, "clone": 56, "socket": 41, "socketpair": 53, "ptrace": 101,
               "mount": 165, "unshare": 272, "bpf": 321, "futex": 202, "memfd_create": 319},
    "aarch64": {"read": 63, "write": 64, "execve": 221, "clone": 220, "socket": 198, "socketpair": 199, "ptrace": 117,
                "mount": 40, "unshare": 97, "bpf": 280, "futex": 98, "memfd_create": 279},
}  # fmt: skip


def verdicts(code: bytes, machine: str) -> dict[str, int]:
    architecture = X86 if machine == "x86_64" else ARM
    return {name: run(code, number, architecture) for name, number in CALLS[machine].items()}


def test_programs(machine: str) -> None:
    found = verdicts(seccomp.program(4), machine)
    refused = {"socket", "ptrace", "mount", "unshare", "bpf", "memfd_create"}
    assert {name for name, said in found.items() if said == EPERM} == refused
    assert {name for name, said in found.items() if said == ALLOW} == CALLS[machine].keys() - refused


def test_one_process(machine: str) -> None:
    assert verdicts(seccomp.program(1), machine)["clone"] == EAGAIN


def test_the_server_mounts_and_forks(machine: str) -> None:
    found = verdicts(seccomp.server(), machine)
    assert {name for name, said in found.items() if said == EPERM} == {"socket", "ptrace", "bpf", "memfd_create"}


def test_no_namespace_by_clone(machine: str) -> None:
    architecture = X86 if machine == "x86_64" else ARM
    number = CALLS[machine]["clone"]
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, NEWUSER, 0x20000000, 0x40000000):
        assert run(seccomp.program(4), number, architecture, bit | 17) == EPERM
    # As threads are made.
    assert run(seccomp.program(4), number, architecture, 0x3D0F00) == ALLOW


def test_another_architecture_is_killed(machine: str) -> None:
    other = ARM if machine == "x86_64" else X86
    assert run(seccomp.program(1), 0, other) == KILL


def test_what_kernels_add_is_refused(machine: str) -> None:
    architecture = X86 if machine == "x86_64" else ARM
    said = {number: run(seccomp.program(4), number, architecture) for number in range(424, 600)}
    assert {number for number, one in said.items() if one == ALLOW} == {424, 434, 436, 437, 439, 441, 449, 452}
    assert {one for one in said.values() if one != ALLOW} == {ENOSYS}
    # x32: the same calls under another number.
    assert run(seccomp.program(4), 0x40000000 | 41, architecture) == ENOSYS


def test_jumps_stay_in_range(machine: str) -> None:
    for code in (seccomp.server(), seccomp.program(1), seccomp.program(2)):
        assert len(code) % 8 == 0
        assert len(code) // 8 < 4_096


def test_other_machines_have_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "ppc64le")
    with pytest.raises(seccomp.UnsupportedMachine, match="ppc64le"):
        seccomp.program(1)
