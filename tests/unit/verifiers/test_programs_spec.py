"""The section of a job file: what it refuses, and that it costs nothing to read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.doctor import Level, judge, look
from pipeline.errors import SpecError
from pipeline.verifier_kinds import by_answer, is_cheap, needs_reference
from tests.factories import make_spec
from verifiers import programs
from verifiers.confined_spec import MIN_PROCESS_MB
from verifiers.programs import ProgramsVerifier, make_programs
from verifiers.programs_spec import ProgramsSpec
from verifiers.sandbox import confine


def test_a_job_names_it() -> None:
    job = make_spec(verifiers=[{"kind": "programs", "style": "humaneval", "tests_column": "test"}])
    [spec] = job.verifiers
    assert isinstance(spec, ProgramsSpec)
    assert not needs_reference(spec)
    assert not is_cheap(spec)
    assert not by_answer(spec)
    assert spec.model_dump()["style"] == "humaneval"


def test_tests_in_the_reference_need_one() -> None:
    assert needs_reference(ProgramsSpec(style="asserts"))
    assert by_answer(ProgramsSpec(style="asserts", on="answer"))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, "style"),
        ({"style": "pytest"}, "style"),
        ({"style": "asserts", "memory_mb": 200, "processes": 8}, f"at least {8 * MIN_PROCESS_MB}"),
        ({"style": "asserts", "processes": 0}, "processes"),
        ({"style": "asserts", "timeout": float("inf")}, "timeout"),
        ({"style": "asserts", "entry_point": "f", "entry_point_column": "name"}, "not both"),
        ({"style": "asserts", "entry_point": "f()"}, "entry_point"),
        ({"style": "stdio", "setup_column": "setup"}, "setup_column"),
        ({"style": "stdio", "network": True}, "network"),
    ],
)
def test_what_it_refuses(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=names):
        ProgramsSpec.model_validate({"kind": "programs", **fields})


def test_the_processor_limit_follows_the_time_limit() -> None:
    assert ProgramsSpec(style="stdio", timeout=2.2).processor_seconds == 3
    assert ProgramsSpec(style="stdio", timeout=2.2, cpu_seconds=1).processor_seconds == 1


def test_reading_it_loads_no_sandbox() -> None:
    code = "import sys, verifiers.programs_spec; print([n for n in sys.modules if n.startswith('verifiers.sandbox')])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_without_bubblewrap_it_refuses_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "BWRAP", "no-such-bwrap")
    with pytest.raises(SpecError, match=r"install the package bubblewrap.*unsafe: true"):
        make_programs(ProgramsSpec(style="stdio"))
    assert isinstance(make_programs(ProgramsSpec(style="stdio", unsafe=True)), ProgramsVerifier)


def test_where_it_is_not_permitted_it_refuses_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(confine, "BWRAP", str(fake))
    with pytest.raises(SpecError, match=r"not permitted here .*No permissions to create new namespace"):
        programs.make_programs(ProgramsSpec(style="stdio"))


def test_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "riscv64" in (confine.problem() or "")


def test_the_doctor_says_so() -> None:
    machine = replace(look(), sandbox=None)
    [fine] = [check for check in judge(machine) if check.name == "bubblewrap"]
    assert fine.level is Level.OK
    [ill] = [check for check in judge(replace(machine, sandbox="install it")) if check.name == "bubblewrap"]
    assert (ill.level, ill.mend) == (Level.WARN, "install it")


def test_the_command_line_shows_neither_home_nor_project() -> None:
    command = confine.command(3, 4)
    assert "--clearenv" in command.argv
    binds = [
        (command.argv[i + 1], command.argv[i + 2]) for i, word in enumerate(command.argv) if word.endswith("-bind")
    ]
    root = str(Path(__file__).parents[3])
    sources = [source for source, _ in binds]
    assert not {"/", "/etc", "/proc", "/home", "/tmp", "/run", "/sys", "/var", root} & set(sources)
    assert [source for source in sources if source.startswith(root)] == [str(Path(confine.__file__).parent)]
    assert not any("site-packages" in source for source in sources)
