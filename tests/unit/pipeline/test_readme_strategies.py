"""The strategy sections README shows are valid jobs, and every kind is in its table."""

import re
from pathlib import Path

import yaml

from pipeline.spec import parse
from tests.integration.real_strategies import STRATEGIES

README = (Path(__file__).resolve().parents[3] / "README.md").read_text()
SECTION = README.split("## Strategies")[1].split("\n## ")[0]


def test_every_kind_is_in_the_table():
    assert set(STRATEGIES) == set(re.findall(r"^\| `(\w+)` \|", SECTION, re.M))


def test_the_sections_are_valid():
    block = re.search(r"```yaml\n(.*?)```", SECTION, re.S)
    assert block is not None
    shown = list(yaml.safe_load_all(block[1]))
    assert len(shown) >= 6
    base = {
        "dataset": {"path": "q.jsonl", "prompt": "{{ question }}", "reference": "gold"},
        "model": {"name": "some/model", "max_model_len": 16384},
        "budget": {"tokens": 1_000_000},
        "output": "runs/x",
        "verifiers": [{"kind": "exact", "name": "tests"}],
    }
    for sections in shown:
        job = parse({**base, **sections})
        assert job.strategy.kind == sections["strategy"]["kind"]
