"""Samples taken from other runs: what is served, what it is charged, and what must not be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.engines.base import Completion, Request
from actors.engines.scripted import ScriptedEngine
from actors.siblings import Siblings, charged_prompt, completion_of
from pipeline.errors import UsageError
from pipeline.fingerprint import fingerprint_of
from pipeline.reuse import refuse_unlike
from pipeline.source import plan_dataset
from pipeline.spec import JobSpec
from pipeline.store import Store
from tests.factories import make_sample
from tests.unit.actors.test_station import begin, make_job, outcome, spent, work

FEW = {"kind": "self_consistency", "max_samples": 3, "rule": "fixed:3"}
MANY = {"kind": "self_consistency", "max_samples": 5, "rule": "fixed:5"}
Key = tuple[str, int]


class Counting(ScriptedEngine):
    """Remembers what it was asked to generate."""

    def __init__(self, spec: JobSpec) -> None:
        super().__init__(spec)
        self.asked: list[Key] = []

    async def generate(self, request: Request) -> Completion:
        self.asked.append((request.item_id, request.sample_index))
        return await super().generate(request)


def job(folder: Path, name: str, rows: int = 9, **sections: Any) -> JobSpec:
    spec = make_job(folder, rows=rows, **sections)
    return spec.model_copy(update={"output": str(folder / name)})


def keys(spec: JobSpec) -> list[Key]:
    return sorted((row["item_id"], row["sample_index"]) for row in outcome(spec)[1])


def grid(rows: int, samples: int, first: int = 0) -> list[Key]:
    return [(f"q{row:03d}", index) for row in range(rows) for index in range(first, samples)]


@pytest.mark.parametrize("lives", [["w-0"], ["w-0", "w-1"]])
async def test_what_a_sibling_has_is_served_and_charged_and_the_rest_generated(
    tmp_path: Path, lives: list[str]
) -> None:
    first = job(tmp_path, "first", strategy=FEW)
    await work(first, ["w-0"])
    second = job(tmp_path, "second", strategy=MANY, reuse=[first.output])
    engine = Counting(second)
    market = await work(second, lives, engine)
    assert sorted(engine.asked) == grid(9, 5, first=3)
    assert keys(second) == grid(9, 5)
    theirs = {(row["item_id"], row["sample_index"]): row for row in outcome(first)[1]}
    run_id = Store.open(first.output).run_info().run_id
    for row in outcome(second)[1]:
        place = (row["item_id"], row["sample_index"])
        assert row["origin"] == (run_id if place in theirs else "")
        if place in theirs:
            kept = ("text", "answer", "prompt_tokens", "cached_prompt_tokens", "completion_tokens", "mean_logprob")
            assert [row[name] for name in kept] == [theirs[place][name] for name in kept]
            assert row["writer"] in lives
    # Alone it would have cost the same.
    alone = job(tmp_path, "alone", strategy=MANY)
    await work(alone, ["w-0"])
    assert spent(second) == spent(alone) == market.ledger.spent


class ColdEngine(Counting):
    """Has a prefix cache: the first sample of a prompt computes it, but for a beginning that all prompts share."""

    SHARED, REST = 1, 1

    def __init__(self, spec: JobSpec) -> None:
        super().__init__(spec)
        self._seen: set[str] = set()

    async def generate(self, request: Request) -> Completion:
        completion = await super().generate(request)
        prompt, new = completion.prompt_tokens, request.prompt.text not in self._seen
        self._seen.add(request.prompt.text)
        return replace(completion, cached_prompt_tokens=self.SHARED if new else prompt - self.REST)


@pytest.mark.parametrize("few", [1, 2])
async def test_a_prompt_is_charged_once_though_two_engines_computed_it(tmp_path: Path, few: int) -> None:
    vote = {"kind": "self_consistency", "max_samples": 5}
    first = job(tmp_path, "first", strategy={**vote, "rule": f"fixed:{few}"})
    await work(first, ["w-0"], ColdEngine(first))
    second = job(tmp_path, "second", strategy=MANY, reuse=[first.output])
    await work(second, ["w-0"], ColdEngine(second))
    alone = job(tmp_path, "alone", strategy=MANY)
    await work(alone, ["w-0"], ColdEngine(alone))
    # Where the other run drew one sample only, it cannot tell how much of a prompt its cache gives.
    untold = 9 * ColdEngine.REST if few == 1 else 0
    assert spent(second) == spent(alone) - untold


@pytest.mark.parametrize(
    ("cached", "first", "later"), [([4], 10, 0), ([4, 4], 10, 0), ([4, 9], 9, 9), ([4, 9, 9], 9, 9), ([10, 10], 10, 0)]
)
def test_what_a_further_sample_would_have_found_cached(cached: list[int], first: int, later: int) -> None:
    served = [make_sample(prompt_tokens=10, cached_prompt_tokens=one) for one in cached]
    assert charged_prompt(served, generated=False) == first
    assert charged_prompt(served, generated=True) == later


async def test_the_budget_is_a_ceiling_over_what_is_served(tmp_path: Path) -> None:
    first = job(tmp_path, "first", strategy=MANY)
    await work(first, ["w-0"])
    second = job(tmp_path, "second", strategy=MANY, reuse=[first.output], budget={"tokens": 200})
    engine = Counting(second)
    await work(second, ["w-0"], engine)
    assert engine.asked == []
    assert 100 < spent(second) <= 200 < spent(first)
    assert {answer["stop_reason"] for answer in outcome(second)[0]} >= {"exhausted"}


async def test_another_way_of_asking_shares_nothing(tmp_path: Path) -> None:
    first = job(tmp_path, "first", strategy=FEW)
    await work(first, ["w-0"])
    for name, sections in (
        ("cold", {"strategy": {"kind": "greedy"}}),
        ("hot", {"strategy": FEW, "sampling": {"temperature": 1.5}}),
    ):
        other = job(tmp_path, name, reuse=[first.output], **sections)
        engine = Counting(other)
        await work(other, ["w-0"], engine)
        assert sorted(engine.asked) == keys(other) != []


async def test_a_strategy_shares_the_way_it_has_in_common(tmp_path: Path) -> None:
    first = job(tmp_path, "first", strategy={"kind": "self_consistency", "temperatures": [0.5, 1.0], "rule": "fixed:4"})
    await work(first, ["w-0"])
    second = job(tmp_path, "second", strategy=FEW, reuse=[first.output])
    engine = Counting(second)
    await work(second, ["w-0"], engine)
    # Two of the four were drawn at the job's own temperature.
    assert sorted(engine.asked) == grid(9, 3, first=2)


def put(folder: Path, name: str, *samples: Any) -> JobSpec:
    """A run whose journal holds these samples."""
    spec = job(folder, name)
    begin(spec).journal(0, samples, "w-9", 1)
    return spec


def test_what_was_aborted_is_not_served_and_what_its_own_bar_cut_is(tmp_path: Path) -> None:
    ends = ["stop", "length", "cut", "abort", "interrupted"]
    samples = [make_sample("q000", index, finish_reason=end) for index, end in enumerate(ends)]
    spec = put(tmp_path, "first", *samples, make_sample("q001"))
    found = Siblings([spec.output]).read(0)
    assert sorted(found["q000"]) == [("k", 0), ("k", 1), ("k", 2)]
    assert sorted(Siblings([spec.output]).read(0, only={"q001"})) == ["q001"]
    assert Siblings([spec.output]).read(1) == {}


def test_of_several_the_first_named_serves_and_the_first_origin_stays(tmp_path: Path) -> None:
    one = put(tmp_path, "one", make_sample("q000", 0, "1"), make_sample("q000", 1, "1", origin="older"))
    two = put(tmp_path, "two", make_sample("q000", 0, "2"), make_sample("q000", 2, "2"))
    ids = [Store.open(spec.output).run_info().run_id for spec in (one, two)]
    found = Siblings([one.output, two.output]).read(0)["q000"]
    assert {place[1]: (sample.answer, sample.origin) for place, sample in found.items()} == {
        0: ("1", ids[0]),
        1: ("1", "older"),
        2: ("2", ids[1]),
    }


def test_a_begun_completion_is_served_without_its_beginning() -> None:
    assert completion_of(make_sample(text="So it is 4."), "So it").text == " is 4."


# --- what is refused ---------------------------------------------------------------------------------------------


def check(spec: JobSpec) -> None:
    plan = plan_dataset(spec.dataset, spec.cluster.shard_size)
    refuse_unlike(spec, fingerprint_of(spec, plan.fingerprint), plan.shards)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": {"options": {"tokens": 9}}}, "model.options.tokens: (not set) (run) → 9 (job)"),
    "seed": ({"seed": 5}, "seed: 0 (run) → 5 (job)"),
    "limit": ({"dataset": {"limit": 5}}, "dataset.limit"),
    "shards": ({"cluster": {"shard_size": 4}}, "other shards; set cluster.shard_size"),
    "further model": (
        {"models": {"large": {"engine": "scripted", "max_model_len": 256, "options": {"tokens": 9}}}},
        "models.large.options: {'tokens': 5} (run) → {'tokens': 9} (job)",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_that_sampled_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    changes, said = OTHERS[name]
    large = {"large": {"engine": "scripted", "max_model_len": 256, "options": {"tokens": 5}}}
    first = job(tmp_path, "first", models=large)
    begin(first)
    other = first.model_dump(mode="json")
    for section, change in changes.items():
        other[section] = {**other[section], **change} if isinstance(change, dict) else change
    with pytest.raises(UsageError) as refused:
        check(JobSpec.model_validate({**other, "output": str(tmp_path / "second"), "reuse": [first.output]}))
    assert "reuse: " in str(refused.value)
    assert said in str(refused.value)
    assert not (tmp_path / "second").exists()


def test_what_the_prompt_key_covers_may_differ(tmp_path: Path) -> None:
    first = job(tmp_path, "first", strategy=FEW)
    begin(first)
    check(job(tmp_path, "second", strategy=MANY, sampling={"temperature": 0.3}, verifiers=[], reuse=[first.output]))


@pytest.mark.parametrize(("url", "said"), [("nowhere", "no run at"), ("second", "this run's own output")])
def test_no_run_and_this_run_are_refused(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"reuse: .*{said}"):
        check(job(tmp_path, "second", reuse=[str(tmp_path / url)]))
