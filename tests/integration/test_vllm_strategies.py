"""Every kind of strategy once on the bundled model: inside its budget, and again over its journal for nothing.

The model draws other samples every time: what is held here holds whatever they are. That traces are cut where they
should be is ``test_vllm_cut``'s to show.
"""

import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from pipeline.strategy_spec import StrategySpec
from tests.integration import real_strategies
from tests.integration.real_strategies import BUDGET, PROGRAMS, ROWS, STRATEGIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def kinds() -> set[str]:
    union = typing.get_args(StrategySpec)[0]
    return {section.model_fields["kind"].annotation.__args__[0] for section in sections(union)}


def sections(union) -> list[type]:
    parts = typing.get_args(union)
    return [one for part in parts for one in sections(part)] if parts else [union]


def test_every_kind_is_run():
    assert STRATEGIES.keys() == kinds()


def test_on_the_bundled_model(tmp_path):
    script = Path(real_strategies.__file__)
    environment = {**os.environ, "PYTHONPATH": str(script.parents[2])}
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    assert found.keys() == STRATEGIES.keys()
    for kind, told in found.items():
        assert told["again"], f"{kind}: another answer over the same journal"
        assert len(told["answers"]) == ROWS, kind
        assert 0 < told["spent"] <= BUDGET, kind
        assert all(samples >= 1 for _, _, samples in told["answers"].values()), kind
        assert any(answer is not None for answer, _, _ in told["answers"].values()), kind
    assert set(found["behavioural_vote"]["answers"]) == set(PROGRAMS)
    assert found["greedy"]["samples"] == ROWS
    assert found["diversified"]["keys"] > 3 * ROWS, "three arms, and beginnings that were gone on with"
    assert ROWS < found["cascade"]["keys"] <= 2 * ROWS, "a second stage at another temperature"
    print(json.dumps({kind: {k: v for k, v in told.items() if k != "answers"} for kind, told in found.items()}))
