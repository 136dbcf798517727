"""Rules that run in threads or children: patterns, JSON Schema, reasoning_gym."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pipeline.gym import read_tasks
from pipeline.records import Item, Sample
from pipeline.spec import AnswerSpec, DatasetSpec
from pipeline.verifier_spec import JsonSchemaSpec, ReasoningGymSpec, RegexSpec
from verifiers.canonical import canonical
from verifiers.contract import Closable
from verifiers.registry import check_reference, make_verifier

EVIL = r"^(a|aa)+$"
LONG = "a" * 5_000 + "!"


def samples(*texts: str, answer: str | None = None) -> list[Sample]:
    return [Sample("q", index, "k", text, answer=answer) for index, text in enumerate(texts)]


async def scores(spec: Any, *texts: str, item: Item | None = None) -> list[float | None]:
    verifier = make_verifier(spec, AnswerSpec(extract="text"))
    try:
        return [verdict.score for verdict in await verifier(item or Item("q"), samples(*texts))]
    finally:
        if isinstance(verifier, Closable):
            await verifier.close()


async def test_regex() -> None:
    assert await scores(RegexSpec(pattern="b+"), "abc", "ac") == [1.0, 0.0]
    assert await scores(RegexSpec(pattern="b+", absent=True), "abc", "ac") == [0.0, 1.0]
    assert await scores(RegexSpec(pattern="b+", whole=True), "abc", "bb") == [0.0, 1.0]
    assert await scores(RegexSpec(pattern="B", ignore_case=True), "abc") == [1.0]
    assert await scores(RegexSpec(pattern="b", on="answer"), "abc") == [0.0]


async def test_a_catastrophic_pattern_ends_and_does_not_hold_up_the_loop() -> None:
    verifier = make_verifier(RegexSpec(pattern=EVIL, timeout=0.05), AnswerSpec())
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    verdicts = await verifier(Item("q"), samples(*[LONG] * 6, "aaa"))
    ticking.cancel()
    assert [verdict.score for verdict in verdicts] == [None] * 7
    assert [verdict.error for verdict in verdicts[:3]] == ["the pattern had no result within 0.05 s"] * 3
    assert ticks > 10


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}}


async def test_json_schema() -> None:
    texts = ('{"n": 1}', 'Here: {"n": 2}. Done.', '{"n": -1}', '{"m": 1}', "none", '{"n": NaN}', "[1]")
    assert await scores(JsonSchemaSpec(definition=SCHEMA), *texts) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    whole = JsonSchemaSpec(definition=SCHEMA, whole=True)
    assert await scores(whole, *texts[:2]) == [1.0, 0.0]
    assert await scores(JsonSchemaSpec(definition=True), "[1]", "[") == [1.0, 0.0]


async def test_a_schema_cannot_hang_crash_or_reach_out() -> None:
    evil = JsonSchemaSpec(definition={"properties": {"a": {"pattern": EVIL}}}, timeout=1.0)
    assert await scores(evil, json.dumps({"a": LONG}), '{"a": "aa"}') == [None, 1.0]
    circle = JsonSchemaSpec(definition={"$ref": "#"})
    assert await scores(circle, "{}") == [None]
    elsewhere = JsonSchemaSpec(definition={"$ref": "http://127.0.0.1:9/x.json"})
    assert await scores(elsewhere, "{}") == [None]
    assert await scores(JsonSchemaSpec(definition=True), "[" * 100_000) == [0.0]


TASKS = ["basic_arithmetic", "arc_agi", "countdown"]


@pytest.mark.parametrize("task", TASKS)
async def test_reasoning_gym_scores_rows_as_they_are_read(task: str) -> None:
    pytest.importorskip("reasoning_gym")
    (row,) = read_tasks(DatasetSpec(path=f"reasoning_gym:{task}", size=1, seed=3), 0, 1)
    assert isinstance(row, Item)
    assert check_reference(ReasoningGymSpec(), row) is None
    verifier = make_verifier(ReasoningGymSpec(), AnswerSpec(extract="text"))
    right = Sample("q", 0, "k", row.reference or "", answer=canonical(row.reference))
    wrong = Sample("q", 1, "k", "no idea", answer="no idea")
    missing = Sample("q", 2, "k", "", answer=None)
    try:
        first, second, third = await verifier(row, [right, wrong, missing])
    finally:
        assert isinstance(verifier, Closable)
        await verifier.close()
    assert first.score == 1.0
    assert second.score is not None
    assert second.score < 1.0
    assert third.score == 0.0


async def test_reasoning_gym_rows_that_are_none() -> None:
    assert check_reference(ReasoningGymSpec(), Item("q", payload="[]")) is not None
    assert check_reference(ReasoningGymSpec(), Item("q", payload="{}")) is not None
    assert check_reference(ReasoningGymSpec(task="countdown"), Item("q", payload="{}")) is None
    pytest.importorskip("reasoning_gym")
    verifier = make_verifier(ReasoningGymSpec(task="no_such_task"), AnswerSpec())
    (verdict,) = await verifier(Item("q", reference="1"), samples("1", answer="1"))
    assert isinstance(verifier, Closable)
    await verifier.close()
    assert "no scorer for task 'no_such_task'" in (verdict.error or "")


async def test_a_scorer_that_rejects_the_rows_own_reference_judges_nothing() -> None:
    pytest.importorskip("reasoning_gym")
    verifier = make_verifier(ReasoningGymSpec(task="arc_agi"), AnswerSpec())
    item = Item("q", reference="1", payload=json.dumps({"output": [[2]]}))
    (verdict,) = await verifier(item, samples("1", answer="1"))
    assert isinstance(verifier, Closable)
    await verifier.close()
    assert verdict.error == "the scorer of 'arc_agi' does not accept the row's own reference"
