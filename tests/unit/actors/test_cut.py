"""Traces cut in mid-generation: what the engine returns, what is charged, what is left of it in a run."""

import asyncio
import json
import math

import pytest

from actors.engines.base import Request
from actors.engines.scripted import ScriptedEngine
from pipeline.errors import SpecError
from pipeline.records import Item
from pipeline.run import open_run
from tests.factories import make_spec
from tests.unit.actors.test_station import ids, make_job, outcome, spent, work

SURE, UNSURE, GROUP = 12.0, 6.0, 4
OPTIONS = {"answers": ["1", "2"], "weights": [1, 1], "confidences": [SURE, UNSURE], "tokens": 12}


def engine_of(**options) -> ScriptedEngine:
    return ScriptedEngine(make_spec(model={"options": {**OPTIONS, **options}}, sampling={"max_tokens": 40}))


def drawn(engine: ScriptedEngine, n: int = 40, **asked):
    prompt = engine.prepare(Item("q", prompt="one two three"))

    async def all_of_them():
        asks = [Request(f"r{i}", prompt, 1.0, i, "q", **asked) for i in range(n)]
        return await asyncio.gather(*map(engine.generate, asks))

    return asyncio.run(all_of_them())


def test_what_falls_below_the_bar_is_cut_and_carries_what_was_generated():
    found = drawn(engine_of(), cut_below=9.0, group=GROUP)
    cut = [c for c in found if c.finish_reason == "cut"]
    whole = [c for c in found if c.finish_reason == "stop"]
    assert len(cut) + len(whole) == len(found)
    assert min(len(cut), len(whole)) > 5
    assert all(c.completion_tokens >= GROUP and c.min_group_confidence < 9.0 for c in cut)
    assert all("." not in c.text for c in cut)
    assert all(c.text.endswith("2.") is False for c in whole)
    mean = sum(c.completion_tokens for c in cut) / len(cut)
    assert mean < sum(c.completion_tokens for c in whole) / len(whole) / 2


def test_a_trace_shorter_than_a_group_is_never_cut():
    found = drawn(engine_of(), cut_below=math.inf, group=40)
    assert {c.finish_reason for c in found} == {"stop"}


def test_without_a_bar_the_same_engine_says_how_sure_it_was():
    found = drawn(engine_of(), group=GROUP)
    assert {c.finish_reason for c in found} == {"stop"}
    by_answer = {word: [c.min_group_confidence for c in found if c.text.endswith(f"{word}.")] for word in "12"}
    assert min(by_answer["1"]) > 6.0 > sum(by_answer["2"]) / len(by_answer["2"])


def test_an_engine_without_confidences_generates_to_the_end():
    found = drawn(engine_of(confidences=None), cut_below=math.inf, group=1)
    assert {(c.finish_reason, c.min_group_confidence) for c in found} == {("stop", None)}


def test_a_confidence_for_every_answer():
    with pytest.raises(SpecError, match=r"model.options: confidences and answers"):
        engine_of(confidences=[1.0])


STRATEGY = {"kind": "deep_conf", "warmup": 4, "keep": 50, "group": GROUP, "max_samples": 12}


def job(folder, **options):
    return make_job(
        folder,
        strategy=STRATEGY,
        sampling={"logprobs": 20, "max_tokens": 40},
        model={"options": OPTIONS | options},
    )


async def test_cut_samples_are_charged_journalled_once_and_have_no_vote(tmp_path):
    spec = job(tmp_path)
    market = await work(spec, ["w-0", "w-1"])
    answers, samples, dead = outcome(spec)
    assert (len(ids(answers)), dead) == (20, [])
    cut = [s for s in samples if s["finish_reason"] == "cut"]
    assert cut
    assert all(s["answer"] is None and s["completion_tokens"] >= GROUP for s in cut)
    keys = [(s["item_id"], s["prompt_key"], s["sample_index"]) for s in samples]
    assert len(set(keys)) == len(keys)
    billed = sum(s["prompt_tokens"] - s["cached_prompt_tokens"] + s["completion_tokens"] for s in samples)
    assert market.ledger.spent == spent(spec) == billed == sum(a["tokens"] for a in answers)
    facts = facts_of(spec)
    assert sum(fact["cut"] for fact in facts.values()) == len(cut)
    assert sum(fact["cut tokens"] for fact in facts.values()) == sum(s["completion_tokens"] for s in cut)
    for answer in answers:
        own = [s for s in samples if s["item_id"] == answer["item_id"] and s["finish_reason"] != "cut"]
        bar = facts[answer["item_id"]]["bar"]
        voted = [s for s in own if s["min_group_confidence"] >= bar]
        assert answer["votes"] == sum(s["answer"] == answer["answer"] for s in voted)


@pytest.mark.parametrize("confidences", [None, [math.nan, math.nan], [math.nan, UNSURE]])
async def test_without_usable_confidences_every_question_is_answered_and_says_why(tmp_path, confidences):
    spec = job(tmp_path, confidences=confidences)
    await work(spec, ["w-0"])
    answers, samples, dead = outcome(spec)
    assert (len(ids(answers)), dead) == (20, [])
    assert all(a["answer"] is not None for a in answers)
    facts = facts_of(spec)
    failed = {a["item_id"] for a in answers if "failed" in facts[a["item_id"]]}
    spoilt = {s["item_id"] for s in samples if not math.isfinite(s["min_group_confidence"] or math.nan)}
    assert failed == spoilt
    if confidences is None:
        assert failed == set(ids(answers))


def facts_of(spec):
    rows = open_run(spec.output).decisions().to_table().to_pylist()
    return {row["item_id"]: json.loads(row["facts"]) for row in rows}
