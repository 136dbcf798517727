"""Bubblewrap's command line: what the sandbox's servers can see, and whether this machine permits it.

Promises: inside are Python's standard library (nothing installed beside it: test sets and their solutions come as
packages too), the shared libraries of the system, ``/dev/null``, ``zero`` and ``urandom``, an empty folder for /tmp and
this folder's code; all read-only. No /proc, /sys, /etc, /run, home or project; no network, no variable of our
environment. ``problem`` looks and starts one process; it changes nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from verifiers.sandbox import seccomp
from verifiers.sandbox.jail import ROOT, UNSAFE, USER

BWRAP = "bwrap"
PROBE_SECONDS = 30.0
_INNER = "/harness"
_START = (
    f"import sys; sys.path.insert(0, '{_INNER}'); from sandbox.server import main; sys.path.pop(0); main(sys.argv[1])"
)
_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")
"""What the server needs to confine its jails and to end them; no jail keeps any."""
_NOBODY = "65534"
_SYSTEM = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64")


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server. ``mode`` is one of ``jail``'s; the environment is empty but for a fixed hash seed."""

    mode: str
    argv: tuple[str, ...]
    environment: dict[str, str]


def command(seccomp_fd: int, info_fd: int) -> Command:
    """A confined server. Bubblewrap reads the filter from ``seccomp_fd``, tells its child's id to ``info_fd``."""
    mode = ROOT if os.geteuid() == 0 else USER
    argv = [*_bwrap(mode), "--seccomp", str(seccomp_fd), "--info-fd", str(info_fd), "--", *_python(), _START, mode]
    return Command(mode, tuple(argv), _environment())


def unsafe_command() -> Command:
    """A server without bubblewrap: the seccomp filter and all limits but those on files' total size and on more than
    one process remain; what our user may read, write and signal is in reach."""
    start = _START.replace(f"'{_INNER}'", repr(str(Path(__file__).parents[1])))
    return Command(UNSAFE, (*_python(), start, UNSAFE), _environment())


def problem() -> str | None:
    """Why programs cannot be confined on this machine, with the mend; None where they can."""
    if not sys.platform.startswith("linux"):
        return "needs Linux: run the verifiers there"
    try:
        seccomp.server()
    except seccomp.UnsupportedMachine as error:
        return str(error)
    if shutil.which(BWRAP) is None:
        return "bubblewrap is not installed: install the package bubblewrap"
    mode = ROOT if os.geteuid() == 0 else USER
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            [*_bwrap(mode), "--", *_python(), "pass"],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap cannot be started: {error}"
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    why = said[-1] if said else f"exit code {done.returncode}"
    return f"bubblewrap is not permitted here ({why[:200]}): allow user namespaces to it, or run as another user"


def _bwrap(mode: str) -> list[str]:
    found = shutil.which(BWRAP) or BWRAP
    argv = [found, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if mode == USER:
        argv += ["--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]
    argv += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]
    for name, value in _environment().items():
        argv += ["--setenv", name, value]
    argv += ["--cap-drop", "ALL"]
    for capability in _CAPABILITIES:
        argv += ["--cap-add", capability]
    return argv + _view() + ["--remount-ro", "/", "--chdir", "/"]


def _view() -> list[str]:
    """The file system inside. No --dev: with it bubblewrap nests user namespaces, and servers could not fork jails."""
    argv: list[str] = []
    made: set[Path] = set()

    def parents(path: Path) -> None:
        # Bubblewrap makes them with the permissions they have outside, where a home may be closed to others.
        for parent in reversed(path.parents):
            if parent != Path("/") and parent not in made:
                made.add(parent)
                argv.extend(["--perms", "0755", "--dir", str(parent)])

    roots = _libraries()
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            argv += ["--symlink", os.readlink(path), name]
    for path in roots:
        parents(path)
        made.add(path)
        argv += ["--ro-bind", str(path), str(path)]
    for path in _installed(roots):
        argv += ["--tmpfs", str(path), "--remount-ro", str(path)]
    for path in (_interpreter(), Path("/etc/ld.so.cache")):
        if path.exists() and not any(path.is_relative_to(root) for root in roots):
            parents(path)
            argv += ["--ro-bind", str(path), str(path)]
    for device in ("null", "zero", "urandom"):
        argv += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    inner = f"{_INNER}/{Path(__file__).parent.name}"
    parents(Path(inner))
    return [*argv, "--ro-bind", str(Path(__file__).parent), inner, "--perms", "1777", "--dir", "/tmp"]  # noqa: S108


def _libraries() -> list[Path]:
    """Folders bound, outer ones first: the system's libraries, and the standard library with what lies beside it."""
    wanted = [Path(name) for name in _SYSTEM if not Path(name).is_symlink() and Path(name).is_dir()]
    # Not the virtual environment's: it has installed packages only.
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    for name in ("stdlib", "platstdlib"):
        path = Path(sysconfig.get_path(name, vars=base)).resolve()
        # Its parent is the prefix's lib, where libpython and what extension modules link to may be.
        wanted.append(path.parent if path.parent.name in ("lib", "lib64") else path)
    kept: list[Path] = []
    for path in sorted(set(wanted), key=lambda each: len(each.parts)):
        if path.is_dir() and not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def _installed(roots: list[Path]) -> list[Path]:
    """Folders of installed packages under ``roots``, to be covered."""
    found = {path for root in roots for name in ("site", "dist") for path in root.glob(f"python3*/{name}-packages")}
    named = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]
    found |= {path for path in named if any(path.is_relative_to(root) for root in roots)}
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def _interpreter() -> Path:
    return Path(os.path.realpath(sys.executable))


def _python() -> list[str]:
    # No site (S, s), nothing of the current folder on the path (P), no bytecode written (B).
    return [str(_interpreter()), "-s", "-S", "-P", "-B", "-c"]


def _environment() -> dict[str, str]:
    # The order of sets of strings must not change a verdict from one server to the next. Jails clear it.
    return {"PYTHONHASHSEED": "0"}
