"""What every strategy promises, through everything real but the engine: ceiling, journal, any order of arrival."""

import asyncio
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from actors.engines.base import Completion, Request
from actors.engines.scripted import ScriptedEngine
from pipeline.spec import JobSpec
from tests.unit.actors.test_station import begin, ids, make_job, outcome, spent, work

ROWS = 8
NAMES = [f"q{i:03d}" for i in range(ROWS)]

STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"kind": "greedy"},
    "self_consistency": {"kind": "self_consistency", "max_samples": 12},
    "cascade": {
        "kind": "cascade",
        "stages": [{"max_samples": 6}, {"temperature": 0.3, "max_samples": 4}],
        "learn_threshold": True,
        "audit_fraction": 0.5,
        # Eight questions cannot teach what is past this: their order must not matter here.
        "tolerance": 0.5,
    },
    "arms": {"kind": "self_consistency", "max_samples": 9, "temperatures": [0.5, 1.5], "min_samples": 2},
    "vote and verifier": {"kind": "self_consistency", "max_samples": 9, "verifier": "numeric", "verify": "weigh"},
    "best_of_n": {"kind": "best_of_n", "score": "numeric", "stop": "pass", "max_samples": 6},
    "aggregate": {
        "kind": "aggregate",
        "method": "usc",
        "vote": {"max_samples": 6},
        "max_tokens": 8,
    },
    "diversified": {
        "kind": "diversified",
        "probes": 6,
        # Completions take about eight: most are cut here, and some end by themselves.
        "probe_tokens": 6,
        "arms": [{"name": "plain"}, {"name": "hot", "temperature": 1.5}],
    },
    "adaptive": {
        "kind": "adaptive",
        "explore": 0.5,
        "arms": [
            {"name": "vote", "strategy": {"kind": "self_consistency", "max_samples": 9}},
            {"name": "hot", "temperature": 1.5, "strategy": {"kind": "self_consistency", "max_samples": 5}},
        ],
    },
    "adaptive with a verifier": {
        "kind": "adaptive",
        "verifier": "numeric",
        "probe": 2,
        "arms": [
            {"name": "tries", "strategy": {"kind": "best_of_n", "score": "numeric", "stop": "pass"}},
            {"name": "cool", "temperature": 0.2, "strategy": {"kind": "self_consistency", "max_samples": 5}},
        ],
    },
    "pandora": {"kind": "best_of_n", "score": "confidence", "stop": "pandora", "max_samples": 6},
    "behaviour": {"kind": "behavioural_vote", "generate": "inputs", "generations": 2, "vote": {"max_samples": 6}},
    "codet": {"kind": "behavioural_vote", "generate": "tests", "generations": 2, "vote": {"max_samples": 6}},
    "deep_conf": {"kind": "deep_conf", "warmup": 4, "keep": 50, "group": 3, "max_samples": 9},
}
"""By a name of their own: the strategy section of a job whose verifier is called numeric."""
# Each with assertions beside it, so that any completion can be program and tests: two do the same, one does not.
PROGRAMS = [
    f"1\nassert f(3) == {value}\n```python\ndef f(x):\n    return {body}\n```\n"
    for value, body in ((6, "x + x"), (6, "2 * x"), (9, "x * x"))
]
RUN_PROGRAMS: dict[str, Any] = {
    "verifiers": [{"kind": "behaviour", "style": "source", "unsafe": True, "timeout": 60.0}],
    "model": {"options": {"answers": PROGRAMS}},
    "answer": {"extract": "code"},
}
JOBS: dict[str, dict[str, Any]] = {"behaviour": RUN_PROGRAMS, "codet": RUN_PROGRAMS}
"""Where a strategy needs another job than the others."""
# An engine that knows how sure it is: of what it says most often most.
SAMPLING, MODEL = {"logprobs": 20}, {"options": {"confidences": [12.0, 9.0, 6.0]}}


class Shuffled(ScriptedEngine):
    """Completions land in another order than they were asked for."""

    def __init__(self, spec: JobSpec, seed: int) -> None:
        super().__init__(spec)
        self._order = random.Random(seed)

    async def generate(self, request: Request) -> Completion:
        for _ in range(self._order.randrange(6)):
            await asyncio.sleep(0)
        return await super().generate(request)


class Closed(ScriptedEngine):
    """Nothing is generated."""

    async def generate(self, request: Request) -> Completion:
        raise AssertionError(f"drawn again: {request.request_id}")


def job(folder: Path, name: str, tokens: int = 1_000_000) -> JobSpec:
    folder.mkdir(exist_ok=True)
    sections = {"sampling": SAMPLING, "model": MODEL, **JOBS.get(name, {})}
    return make_job(folder, ROWS, strategy=STRATEGIES[name], budget={"tokens": tokens}, **sections)


def decided(spec: JobSpec) -> dict[str, tuple]:
    answers, samples, dead = outcome(spec)
    assert (ids(answers), dead) == (NAMES, [])
    drawn = Counter((s["item_id"], s["prompt_key"], s["sample_index"]) for s in samples)
    assert drawn.total() == len(drawn)
    return {a["item_id"]: (a["answer"], a["stop_reason"], a["votes"], a["confidence"], a["samples"]) for a in answers}


def give_decisions(one: Path, other: Path) -> None:
    """Put what was decided of one run's questions into another's journal."""
    for path in one.glob("journal/*/decided-*"):
        to = other / path.relative_to(one)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)


@pytest.mark.parametrize("name", STRATEGIES)
async def test_re_executed_over_its_journal_it_answers_the_same_and_draws_nothing(tmp_path, name):
    spec = job(tmp_path / "run", name)
    await work(spec, ["w-0"])
    first, paid = decided(spec), spent(spec)
    for folder in ("commits", "answers", "samples", "decisions"):
        shutil.rmtree(Path(spec.output) / folder)
    await work(spec, ["w-1"], Closed(spec))
    assert decided(spec) == first
    assert spent(spec) == paid


@pytest.mark.parametrize("name", STRATEGIES)
async def test_the_order_in_which_samples_arrive_changes_nothing(tmp_path, name):
    found = []
    before: Path | None = None
    for seed in (1, 2):
        spec = job(tmp_path / str(seed), name)
        if before is not None:
            # What one question teaches another depends on who ends first: what was decided by that is given.
            begin(spec)
            give_decisions(before, Path(spec.output))
        await work(spec, [f"w-{seed}"], Shuffled(spec, seed))
        found.append((decided(spec), spent(spec)))
        before = Path(spec.output)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("tokens", [1, 90, 400, 1500])
async def test_the_budget_is_a_ceiling_and_every_row_is_answered(tmp_path, name, tokens):
    spec = job(tmp_path / "run", name, tokens)
    market = await work(spec, ["w-0", "w-1"])
    decided(spec)
    assert spent(spec) <= tokens
    assert (market.ledger.spent, market.ledger.reserved) == (spent(spec), 0)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_section_is_a_strategy_that_travels(name):
    import pickle

    from actors.assembly import make_strategy
    from tests.factories import make_spec

    sections = {"verifiers": [{"kind": "numeric"}], "sampling": SAMPLING, **JOBS.get(name, {})}
    spec = make_spec(strategy=STRATEGIES[name], dataset={"reference": "gold"}, **sections)
    strategy = make_strategy(spec.strategy)
    assert pickle.loads(pickle.dumps(strategy)) == strategy
    assert (strategy.minimum, strategy.maximum) == (spec.strategy.least, spec.strategy.most)
