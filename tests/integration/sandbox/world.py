"""What attacks look for: servers to reach, files to read, a process to touch, a variable to find.

Standard library and the sandbox only. Also the two ways an attack is run: ``outside``, in a plain process with this
world around it, and ``inside``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.integration.sandbox.attacks import Attack
from verifiers.sandbox.client import Outcome, Sandbox
from verifiers.sandbox.limits import Limits

World = dict[str, Any]
SECONDS = 60
LIMITS = Limits(wall_seconds=30.0, cpu_seconds=20, memory_mb=512, processes=8)
"""More than the default allows: what the limits of one process alone would keep out must be kept out by the rest."""

_VICTIM = (
    "import ctypes, sys\nword = ctypes.create_string_buffer(sys.argv[1].encode())\n"
    "ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)\n"
    "print(ctypes.addressof(word), flush=True)\nsys.stdin.read()\n"
)


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Everything set up; all of it is gone afterwards."""
    word = "word" + secrets.token_hex(8)
    variable = "PONDER_TEST_SECRET"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="escape")))
        secret = folder / "secret"
        secret.write_text(word)
        secret.chmod(0o600)
        os.environ[variable] = word
        stack.callback(os.environ.pop, variable)
        victim = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-S", "-c", _VICTIM, word], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(victim.kill)
        assert victim.stdout is not None
        address = int(victim.stdout.readline())
        read, write = os.pipe()
        stack.callback(os.close, read)
        stack.callback(os.close, write)
        os.set_inheritable(write, True)
        abstract = f"escape-{word}"
        tcp = _serve(stack, socket.AF_INET, ("127.0.0.1", 0))
        _serve(stack, socket.AF_UNIX, str(folder / "socket"))
        _serve(stack, socket.AF_UNIX, "\0" + abstract)
        yield {
            "word": word,
            "variable": variable,
            "folder": str(folder),
            "secret": str(secret),
            "project": str(Path(__file__).resolve().parents[3]),
            "packages": [one for one in sys.path if one.endswith("-packages")],
            "victim": victim.pid,
            "address": address,
            "fd": write,
            "tcp": tcp[1] if isinstance(tcp, tuple) else 0,
            "udp": _echo(stack),
            "unix": str(folder / "socket"),
            "abstract": abstract,
        }


def outside(attack: Attack, around: World) -> bool:
    """Does the attack succeed in a plain process?"""
    code = f"{attack.code}\nimport json, sys\nprint(json.dumps(bool(attack(json.loads(sys.argv[1])))))\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, json.dumps(around)],
        capture_output=True,
        cwd=around["folder"],
        pass_fds=(around["fd"],),
        timeout=SECONDS,
        check=False,
    )
    return done.returncode == 0 and done.stdout.splitlines()[-1:] == [b"true"]


def inside(sandbox: Sandbox, code: str, around: World, limits: Limits = LIMITS) -> Any:
    """A coroutine: the outcome of the attack in the sandbox. It succeeded where the one test passed."""
    return sandbox.calls(code, source_tests(f"assert attack({around!r})"), limits)


def source_tests(*cases: str) -> dict[str, Any]:
    return {"kind": "source", "cases": list(cases), "entry": None, "setup": "", "partial": False, "tolerance": 0.0}


def passed(outcome: Outcome) -> bool:
    """Did the referee say that everything passed? Raises where the check could not be made."""
    assert outcome.error is None, outcome.error
    if not outcome.verdict:
        return False
    verdict = json.loads(outcome.verdict)
    assert "error" not in verdict, verdict
    return verdict["first"] is None


def family(pid: int) -> set[int]:
    """Process ids below ``pid``, zombies included."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    frontier = [pid]
    while frontier:
        for child in children.get(frontier.pop(), []):
            found.add(child)
            frontier.append(child)
    return found


def families(sandbox: Sandbox) -> dict[int, set[int]]:
    """The processes of every server."""
    return {pid: family(pid) for pid in sandbox.pids}


async def gone(ended: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Wait for a condition."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not ended():
                await asyncio.sleep(0.01)
    return ended()


def start(code: str, **options: Any) -> subprocess.Popen[bytes]:
    """A plain Python process without a sandbox."""
    return subprocess.Popen([sys.executable, "-c", code], **options)


def there(pids: set[int]) -> set[int]:
    """Those of these processes that still run. A zombie has ended; who reaps an orphan is not ours to say."""
    return {pid for pid in pids if _state(pid) not in "ZX"}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process started in a session of its own, and those it left in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _serve(stack: contextlib.ExitStack, kind: socket.AddressFamily, address: Any) -> Any:
    listener = stack.enter_context(socket.socket(kind))
    listener.bind(address)
    listener.listen()

    def run() -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), taken:
                taken.sendall(b"hello")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    # A blocked accept is woken by shutdown, not by close.
    stack.callback(thread.join)
    stack.callback(listener.shutdown, socket.SHUT_RDWR)
    return listener.getsockname()


def _echo(stack: contextlib.ExitStack) -> int:
    bound = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    bound.bind(("127.0.0.1", 0))
    port = int(bound.getsockname()[1])

    def run() -> None:
        while True:
            data, sender = bound.recvfrom(16)
            if data == b"stop":
                return
            bound.sendto(b"hello", sender)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def stop() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"stop", ("127.0.0.1", port))
        thread.join()

    stack.callback(stop)
    return port
