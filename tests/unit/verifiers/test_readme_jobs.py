"""The jobs README shows for every kind of verifier: they are valid, and tell right from wrong."""

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import gym
from pipeline.records import Item, Sample
from pipeline.spec import JobSpec, parse
from pipeline.verifier_kinds import kinds
from verifiers.canonical import canonical_for
from verifiers.extract import make_extractor
from verifiers.registry import check_reference, make_verifier
from verifiers.sandbox import confine

README = Path(__file__).resolve().parents[3] / "README.md"

CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "exact": ({"reference": "Paris"}, "Paris", "Lyon"),
    "numeric": ({"reference": "1.5 km"}, "It is \\boxed{1500 m}.", "It is \\boxed{1.7 km}."),
    "choice": ({"reference": "B"}, "The answer is (B).", "The answer is (C)."),
    "regex": ({}, "On 2024-05-01.", "On the first of May."),
    "json_schema": ({}, 'Here: {"name": "Ann", "age": 3}', '{"age": 3}'),
    "math": ({"reference": "0.5"}, "So \\boxed{\\frac12}", "So \\boxed{2}"),
    "function": ({}, "yes", "no"),
    "programs": (
        {"test_list": ["assert twice(2) == 4"]},
        "def twice(x):\n    return 2 * x",
        "def twice(x):\n    return x",
    ),
    "behaviour": ({"inputs": [[1], [2]]}, "def solve(x):\n    return x", "def solve(x):\n    raise ValueError"),
    "all": ({"reference": "4"}, "4", "5"),
    "any": ({"reference": "4"}, "It is 4", "It is 5"),
    "weighted": ({"reference": "4"}, "#### 4", "5"),
}
"""Kind → columns and reference of a row, a right completion and a wrong one."""


def jobs() -> list[JobSpec]:
    section = README.read_text().split("## Verifiers")[1].split("\n## ")[0]
    block = re.search(r"```yaml\n(.*?)```", section, re.S)
    assert block is not None
    rest = {"budget": {"tokens": 1}, "output": "runs/x"}
    return [parse({**job, **rest}) for job in yaml.safe_load_all(block[1])]


SECTIONS = [(job, section) for job in jobs() for section in job.verifiers]


def test_every_kind_has_a_job():
    ours = {kind for kind in kinds() if not kind.startswith("test_")}
    assert {section.kind for _, section in SECTIONS} == ours
    assert CASES.keys() == ours - {"reasoning_gym"}


def sample_of(job: JobSpec, text: str) -> Sample:
    extract, canonical = make_extractor(job.answer), canonical_for(job.answer)
    return Sample("q", 0, "k", text, canonical(extract(text)))


async def scores(job: JobSpec, section: Any, item: Item, *texts: str) -> list[float | None]:
    verifier = make_verifier(section, job.answer)
    try:
        return [(await verifier(item, [sample_of(job, text)]))[0].score for text in texts]
    finally:
        if hasattr(verifier, "close"):
            await verifier.close()


@pytest.mark.parametrize(("job", "section"), SECTIONS, ids=[section.kind for _, section in SECTIONS])
async def test_it_tells_right_from_wrong(job, section, monkeypatch):
    if section.kind in ("programs", "behaviour") and (why := confine.problem()):
        pytest.skip(f"no sandbox here: {why}")
    if section.kind == "reasoning_gym":
        pytest.importorskip("reasoning_gym")
        (item,) = gym.read_tasks(job.dataset, 0, 1)
        assert isinstance(item, Item)
        right, wrong = f"{item.reference}", f"{item.reference}0"
    else:
        row, right, wrong = CASES[section.kind]
        columns = {name: value for name, value in row.items() if name != "reference"}
        item = Item("q", prompt="p", reference=row.get("reference"), payload=json.dumps(columns))
    module = types.ModuleType("mypackage.checks")
    module.score = lambda item, sample: sample.text == "yes"
    monkeypatch.setitem(sys.modules, "mypackage", types.ModuleType("mypackage"))
    monkeypatch.setitem(sys.modules, "mypackage.checks", module)
    assert check_reference(section, item, job.answer) is None
    good, bad = await scores(job, section, item, right, wrong)
    assert good == 1.0
    assert bad is not None
    assert bad < 1.0
