"""The adaptive strategy through everything real but the engines: two models, one budget, lessons that last."""

import json

import pytest

from actors.recovery import restore_market
from budgets.messages import WorkerReport
from pipeline.driver import prepare
from pipeline.spec import JobSpec
from pipeline.store import Store
from tests.unit.actors.test_budget_units import check_books
from tests.unit.actors.test_fleet import LARGE, WIDE, cascade_job, run
from tests.unit.actors.test_station import ALL, ids, make_job, outcome, work

ARMS = [
    {"name": "vote", "strategy": {"kind": "self_consistency", "max_samples": 8, "evidence": "votes"}},
    {"name": "big", "model": "large", "strategy": {"kind": "self_consistency", "max_samples": 4, "evidence": "votes"}},
]


def adaptive_job(folder, arms=ARMS, models=None, budget=None, **settings) -> JobSpec:
    strategy = {"kind": "adaptive", "evidence": "votes", "arms": arms, **settings}
    return cascade_job(
        folder, strategy=strategy, models={"large": models or LARGE}, budget=budget or {"tokens": 100_000}
    )


def facts_of(spec: JobSpec) -> dict[str, dict]:
    store = Store.open(spec.output)
    from pipeline.run import open_run

    rows = open_run(store.url).decisions().to_table().to_pylist()
    return {row["item_id"]: json.loads(row["facts"]) for row in rows}


def known(spec: JobSpec) -> dict:
    """What a resumed run's first worker is told."""
    prepared = prepare(spec)
    market = restore_market(prepared.store, 100_000, prepared.shards)
    return dict(market.sync(WorkerReport("new", 1)).lessons)


@pytest.mark.parametrize("lives", [["w-0"], ["w-0", "w-1"]])
async def test_arms_are_asked_compared_and_remembered(tmp_path, lives):
    spec = adaptive_job(tmp_path, explore=1.0)
    check_books(spec, await run(spec, lives))
    answers, samples, dead = outcome(spec)
    assert (ids(answers), dead) == (ALL, [])
    facts = facts_of(spec)
    contested = {item for item, told in facts.items() if told["arms"] != "probe"}
    assert contested
    assert {sample["item_id"] for sample in samples if sample["model"] == "large"} == contested
    # Every contested question compared both arms, and taught of each that had anything to pay for.
    counts = dict.fromkeys(("vote", "big"), 0)
    for (name, arm), lesson in known(spec).items():
        assert name.startswith("adaptive/")
        counts[arm] += lesson.count
    assert counts == {"vote": len(contested), "big": len(contested)}


async def test_a_verifier_teaches_which_arm_finds_what_passes(tmp_path):
    spec = adaptive_job(tmp_path, verifier="numeric", probe=2)
    await run(spec, ["w-0"])
    answers, _, dead = outcome(spec)
    assert (ids(answers), dead) == (ALL, [])
    # The large model is always right here: no question is left that did not pass.
    assert {answer["stop_reason"] for answer in answers} == {"verified"}
    assert {answer["correct"] for answer in answers} == {True}
    wins = {arm: lesson.mean for (_, arm), lesson in known(spec).items()}
    assert wins["big"] == 1.0


async def test_a_model_that_refuses_a_question_leaves_it_to_the_others(tmp_path):
    picky = {**LARGE, "options": {**LARGE["options"], "reject": "What is 1"}}
    spec = adaptive_job(tmp_path, models=picky, explore=1.0)
    await run(spec, ["w-0"])
    answers, samples, dead = outcome(spec)
    assert (ids(answers), dead) == (ALL, [])
    teens = {"q001", *(f"q{n:03d}" for n in range(10, 20))}
    assert {s["item_id"] for s in samples if s["model"] == "large"} <= set(ALL) - teens
    named = {item for item, told in facts_of(spec).items() if "big: " in str(told.get("failed"))}
    assert named
    assert named <= teens


async def test_a_finished_run_is_answered_again_by_other_arms(tmp_path):
    """Decisions that name arms which are gone are no obstacle."""
    spec = adaptive_job(tmp_path, explore=1.0)
    await run(spec, ["w-0"])
    Store.open(spec.output).finish({})
    hot = {"name": "hot", "temperature": 0.5, "strategy": {"kind": "self_consistency", "max_samples": 2}}
    other = adaptive_job(tmp_path, arms=[hot, ARMS[1]])
    await run(other, ["w-1"])
    answers, _, dead = outcome(other)
    assert (ids(answers), dead) == (ALL, [])
    asked = {arm for told in facts_of(other).values() for arm in str(told["arms"]).split(", ")}
    assert "vote" not in asked
    assert "big" in asked


async def test_settled_questions_are_audited_by_every_arm(tmp_path):
    arms = [ARMS[0], {"name": "hot", "temperature": 0.5, "strategy": {"kind": "self_consistency", "max_samples": 2}}]
    spec = make_job(
        tmp_path,
        model=WIDE,
        strategy={"kind": "adaptive", "evidence": "votes", "arms": arms},
        budget={"tokens": 100_000, "audit": 0.99},
    )
    await work(spec, ["w-0"])
    answers, _, _ = outcome(spec)
    settled = [answer for answer in answers if answer["stop_reason"] == "settled"]
    assert settled
    audited = [answer for answer in settled if answer["audit_samples"]]
    assert len(audited) >= len(settled) - 1
    assert {answer["samples"] for answer in audited} == {8 + 2}
    assert None not in {answer["flipped"] for answer in audited}
