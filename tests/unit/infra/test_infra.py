"""The image build file and the RayJob, parsed: what they name exists, versions agree, no secrets, no root."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from pipeline import spec

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RAY = next(need for need in map(Requirement, PROJECT["dependencies"]) if need.name == "ray")

# A name that promises a secret, or a value of some length that mixes letters and digits as keys do.
SECRET_NAME = re.compile(r"secret|token|passw|(?:api|access)_?key|credential", re.IGNORECASE)
SECRET_VALUE = re.compile(r"(?=[^/.:]*\d)(?=[^/.:]*[A-Za-z])[A-Za-z0-9+_-]{20,}")


@dataclass
class Stage:
    """One ``FROM`` of a Dockerfile, with its instructions in order; ``ARG`` values are filled in."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        return [arguments for each, arguments in self.steps if each == instruction]


def stages(text: str) -> dict[str, Stage]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    instructions = [
        line.split(maxsplit=1) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()
    ]
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    for instruction, rest in instructions:
        if instruction == "FROM":
            base, _, name = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], rest).split()
            found[name] = Stage(base, name)
        elif not found:
            assert instruction == "ARG"
            name, _, arguments[name] = rest.partition("=")
        else:
            list(found.values())[-1].steps.append((instruction, rest))
    return found


@dataclass(frozen=True)
class Copy:
    """One source of a ``COPY``: ``stage`` it comes from (None: the repository), and where it lands in the image."""

    stage: str | None
    source: str
    target: PurePosixPath


def copies(stage: Stage) -> Iterator[Copy]:
    here = PurePosixPath("/")
    for instruction, rest in stage.steps:
        if instruction == "WORKDIR":
            here /= rest.strip()
        elif instruction == "COPY":
            words = shlex.split(rest)
            flags = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
            *sources, target = [word for word in words if not word.startswith("--")]
            for source in sources:
                into_folder = target.endswith("/") or len(sources) > 1
                landing = here / target / (PurePosixPath(source).name if into_folder else "")
                yield Copy(flags.get("from"), source, landing)


STAGES = stages((ROOT / "infra" / "Dockerfile").read_text())
RAYJOB = yaml.safe_load((ROOT / "infra" / "rayjob.yaml").read_text())
CLUSTER = RAYJOB["spec"]["rayClusterSpec"]


def in_repository(path: PurePosixPath, stage: Stage) -> Path | None:
    """The file of the repository that is at ``path`` in the image of ``stage``."""
    for copy in copies(stage):
        if path.is_relative_to(copy.target):
            if copy.stage is not None:
                return in_repository(path, STAGES[copy.stage])
            return ROOT / copy.source / path.relative_to(copy.target)
    return None


def pods() -> dict[str, dict[str, Any]]:
    groups = {"head": CLUSTER["headGroupSpec"]} | {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def containers() -> list[dict[str, Any]]:
    return [container for pod in pods().values() for container in pod["containers"]]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, str(key))
    elif isinstance(value, list):
        for below in value:
            yield from leaves(below, name)
    else:
        yield name, value


def test_the_targets_are_there():
    assert {"cpu", "cuda"} <= set(STAGES)
    assert STAGES["cpu"].base == "python:3.11-slim"
    assert re.fullmatch(r"rayproject/ray:[\d.]+-py311-gpu", STAGES["cuda"].base)
    assert not any(stage.base.endswith(":latest") or ":" not in stage.base for stage in STAGES.values())


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_an_image_does_not_run_as_root(name):
    user = STAGES[name].of("USER")[-1]
    assert user.split(":")[0].isdigit(), "by number: runAsNonRoot cannot judge a name"
    assert int(user.split(":")[0]) > 0


def test_everything_copied_exists():
    from_repository = {copy.source for stage in STAGES.values() for copy in copies(stage) if copy.stage is None}
    assert {source for source in from_repository if not (ROOT / source).exists()} == set()
    assert {copy.stage for stage in STAGES.values() for copy in copies(stage)} <= {None, *STAGES}


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_every_room_and_what_the_build_reads_is_in_the_image(name):
    rooms = {"pipeline", "actors", "strategies", "verifiers", "budgets", "jobs"}
    wanted = rooms | {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]}
    missing = {
        path for path in wanted if in_repository(PurePosixPath("/opt/ponder") / path, STAGES[name]) != ROOT / path
    }
    assert missing == set()


def test_the_extra_the_cuda_image_installs_exists():
    extras = re.findall(r"pip install .*\.\[(\w+)\]", "\n".join(STAGES["cuda"].of("RUN")))
    assert extras == ["gpu"]
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_the_cpu_image_installs_the_lock():
    [setup] = [run for run in STAGES["cpu-build"].of("RUN") if "infra/setup.sh" in run]
    assert "PONDER_TORCH_INDEX" in setup
    assert "locks/cpu.txt" in (ROOT / "infra" / "setup.sh").read_text()


def test_one_version_of_ray_everywhere():
    version = CLUSTER["rayVersion"]
    assert RAY.specifier.contains(version)
    assert STAGES["cuda"].base.split(":")[1].split("-")[0] == version
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "infra/locks/cpu.txt").read_text(), re.MULTILINE))
    assert locked["ray"] == version


def test_the_image_is_the_projects_version():
    images = {container["image"] for container in containers()}
    assert len(images) == 1
    [tag] = {image.rpartition(":")[2] for image in images}
    version, target = tag.split("-")
    assert version == PROJECT["version"]
    assert target in STAGES


def test_the_rayjob_ends_and_is_bounded():
    assert (RAYJOB["apiVersion"], RAYJOB["kind"]) == ("ray.io/v1", "RayJob")
    job = RAYJOB["spec"]
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] >= 0
    assert 0 <= job["backoffLimit"] <= 10
    assert job["activeDeadlineSeconds"] > 0


def test_the_entrypoint_is_a_job_that_loads():
    target = containers()[0]["image"].rpartition("-")[2]
    program, command, job, *options = shlex.split(RAYJOB["spec"]["entrypoint"])
    assert (program, command) == ("ponder", "run")
    assert program in PROJECT["scripts"]
    given = {"--set": [], "--output": []}
    words = iter(word for word in options if word != "--json")
    for option in words:
        given[option].append(next(words))
    file = in_repository(PurePosixPath(job), STAGES[target])
    assert file is not None
    assert file.is_file()
    loaded = spec.load(file, given["--set"], *given["--output"])
    assert loaded.output.startswith("s3://"), "the pods' disks go with the cluster"
    data = in_repository(PurePosixPath(str(loaded.dataset.path)), STAGES[target])
    assert data is not None
    assert data.is_file()
    [workers] = CLUSTER["workerGroupSpecs"]
    assert loaded.cluster.workers == workers["replicas"]


def test_engines_have_gpus_and_the_head_has_none():
    head, *workers = containers()
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert workers
    for container in workers:
        assert int(container["resources"]["limits"]["nvidia.com/gpu"]) >= 1
    assert all({"cpu", "memory"} <= set(container["resources"]["limits"]) for container in containers())


def test_pods_have_shared_memory_and_few_rights():
    for pod in pods().values():
        memory = {volume["name"] for volume in pod["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert mounts["/dev/shm"] in memory
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_credentials_come_by_the_name_of_a_secret():
    for container in containers():
        assert [set(source) for source in container["envFrom"]] == [{"secretRef"}]
        assert "env" not in container
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert "runtimeEnvYAML" not in RAYJOB["spec"]


def test_no_value_looks_like_a_key():
    suspects = [
        (name, value) for name, value in leaves(RAYJOB) if isinstance(value, str) and SECRET_VALUE.search(value)
    ]
    assert suspects == []
    assert [name for name, _ in leaves(RAYJOB) if SECRET_NAME.search(name)] == []
    for stage in STAGES.values():
        for text in stage.of("ENV") + stage.of("ARG"):
            assert not SECRET_NAME.search(text)
            assert not SECRET_VALUE.search(text)


def test_the_check_for_keys_finds_one():
    assert SECRET_VALUE.search("wJalrXUtnFEMIK7MDENGbPxRfiCY")
    assert SECRET_NAME.search("AWS_SECRET_ACCESS_KEY=")


def test_no_registry_or_index_is_written_down():
    for name in ("Dockerfile", "rayjob.yaml"):
        hosts = re.findall(r"\w+://([^\s/\"]+)", (ROOT / "infra" / name).read_text())
        assert [host for host in hosts if host != "ponder-runs"] == []
