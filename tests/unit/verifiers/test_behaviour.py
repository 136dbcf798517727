"""The kind ``behaviour`` over a fake sandbox: what is read of an observer, the time inputs share, hashes of values."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.records import Item, Sample, Verdict
from verifiers.behaviour import BehaviourVerifier, check_item
from verifiers.behaviour_spec import BehaviourSpec
from verifiers.registry import check_reference
from verifiers.sandbox.client import Ended, Outcome, Sandbox
from verifiers.sandbox.limits import Limits
from verifiers.sandbox.observer import digest
from verifiers.sandbox.plain import NotPlain

ONE, TWO, THREE = (digest(number) for number in (1, 2, 3))
FINE = {"candidate": Ended(0, 0.1, 9_000), "referee": Ended(0, 0.1, 9_000)}


class FakeSandbox(Sandbox):
    """Gives prepared outcomes in turn and keeps what it was asked."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[list[Any]] = []
        self.seconds: list[float] = []

    async def observe(self, program: str, inputs: dict[str, Any], limits: Limits) -> Outcome:
        self.asked.append(inputs["cases"])
        self.seconds.append(limits.wall_seconds)
        return self.outcomes.pop(0)


def wrote(*lines: Any, **more: Any) -> Outcome:
    return Outcome(FINE, verdict=b"".join(json.dumps(line).encode() + b"\n" for line in lines), **more)


def told(*words: str, **more: Any) -> Outcome:
    return wrote({"ready": True}, *words, **more)


async def seen(sandbox: Sandbox, count: int = 3, seconds: float = 8.0) -> Verdict:
    spec = BehaviourSpec(style="source", inputs_column="inputs", timeout=seconds)
    item = Item("one", payload=json.dumps({"inputs": [f"f({number})" for number in range(count)]}))
    [verdict] = await BehaviourVerifier(spec, sandbox)(item, [Sample("one", 0, "", "x = 1")])
    return verdict


async def test_an_input_that_hangs_is_passed_over_in_a_fresh_process_with_half_the_time_left() -> None:
    sandbox = FakeSandbox(told(ONE, timed_out=True, seconds=4.0), told(THREE, seconds=1.0))
    assert await seen(sandbox) == Verdict("behaviour", 2 / 3, detail=f"{ONE} !time {THREE}")
    assert sandbox.asked == [["f(0)", "f(1)", "f(2)"], ["f(2)"]]
    assert sandbox.seconds == [4.0, 2.0]


async def test_a_program_that_keeps_dying_is_not_asked_for_ever() -> None:
    sandbox = FakeSandbox(*[told("!ended") for _ in range(9)])
    verdict = await seen(sandbox, 9)
    assert verdict.detail == " ".join(["!ended"] * 4 + ["!unasked"] * 5)
    assert len(sandbox.asked) == 4


async def test_without_time_no_process_is_begun() -> None:
    sandbox = FakeSandbox(told(ONE, timed_out=True, seconds=7.95))
    assert (await seen(sandbox)).detail == f"{ONE} !time !unasked"


@pytest.mark.parametrize(
    ("outcome", "detail"),
    [
        (wrote({"load": "no"}), "the program does not load: no"),
        (wrote(timed_out=True), "the program does not load: it timed out"),
        (wrote("+"), "the program does not load: it ended its process"),
    ],
)
async def test_programs_that_do_not_load(outcome: Outcome, detail: str) -> None:
    assert await seen(FakeSandbox(outcome)) == Verdict("behaviour", 0.0, detail=detail)


@pytest.mark.parametrize(
    "outcome", [Outcome(error="the sandbox was lost"), wrote({"error": "the inputs cannot be run"})]
)
async def test_what_says_nothing_of_the_program_is_an_error(outcome: Outcome) -> None:
    verdict = await seen(FakeSandbox(outcome))
    assert (verdict.score, bool(verdict.error)) == (None, True)


@pytest.mark.parametrize("forged", ["0" * 17, "x", "!no good", "! ", 7, ["+"], {"ready": True}, None])
async def test_a_line_that_is_no_word_ends_what_is_believed(forged: Any) -> None:
    sandbox = FakeSandbox(told(ONE, forged, THREE), told(TWO))
    assert (await seen(sandbox)).detail == f"{ONE} !ended {TWO}"


async def test_more_words_than_inputs_are_left_out() -> None:
    assert (await seen(FakeSandbox(told(ONE, TWO, THREE, ONE, ONE)))).detail == f"{ONE} {TWO} {THREE}"


async def test_the_detail_is_bounded() -> None:
    sandbox = FakeSandbox(told(*["!" + "E" * 32] * 128))
    spec = BehaviourSpec(style="source", inputs_column="inputs", max_inputs=128)
    item = Item("one", payload=json.dumps({"inputs": ["f(1)"] * 500}))
    [verdict] = await BehaviourVerifier(spec, sandbox)(item, [Sample("one", 0, "", "x = 1")])
    assert len(verdict.detail or "") == 128 * 34 - 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (True, 1, True),
        (0, False, True),
        (0, None, False),
        (0.1 + 0.2, 0.3, True),
        (3, 2.9999999999999996, True),
        (0.301, 0.3, False),
        (10**20, 1e20, True),
        (10**4000, 10**4000 + 1, False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("-inf"), False),
        (-0.0, 0, True),
        (Fraction(1, 2), 0.5, True),
        (Decimal("1e400"), Decimal("1e500"), False),
        (Fraction(10**400), Fraction(10**400 + 1), False),
        (1 + 0j, 1, True),
        (1j, 2j, False),
        ("1", 1, False),
        ("a", b"a", False),
        (b"a", bytearray(b"a"), True),
        ([1, 2], (1, 2), False),
        ([1, 2], deque([1, 2]), False),
        ([[1], 2], [1, [2]], False),
        (["a", "b"], ['a","b'], False),
        ({1, 2}, frozenset({2, 1}), True),
        ({1: "a", 2: "b"}, {2: "b", 1: "a"}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}.keys(), {"a"}, True),
        (range(0), range(5, 5), True),
        (range(0, 3, 2), range(0, 4, 2), True),
        (range(3), [0, 1, 2], False),
        (iter([1]), [1], False),
    ],
)
def test_equal_values_have_one_hash(one: Any, other: Any, same: bool) -> None:
    assert (digest(one) == digest(other)) is same


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda parts: st.lists(parts, max_size=3) | st.tuples(parts, parts) | st.dictionaries(st.text(max_size=2), parts),
    max_leaves=6,
)


@given(PLAIN, PLAIN)
def test_without_floats_hashes_agree_where_values_are_equal_and_only_there(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (one == other)


def test_what_has_no_hash() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (object(), [test_what_has_no_hash], deep):
        with pytest.raises(NotPlain):
            digest(value)
    while deep:
        deep = deep[0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"style": "stdio"}, "set inputs_column"),
        ({"style": "function", "inputs_column": "i"}, "set entry_point"),
        ({"style": "stdio", "inputs_column": "i", "entry_point": "f"}, "reads no entry_point"),
        ({"style": "source", "max_inputs": 129}, "128"),
        ({"style": "source", "entry_point": "f", "entry_point_column": "e"}, "not both"),
        ({"style": "source", "tests_column": "t"}, "tests_column"),
    ],
)
def test_sections_that_cannot_work(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        BehaviourSpec.model_validate({"kind": "behaviour", **fields})


async def test_what_a_strategy_hands_over_takes_the_place_of_the_column() -> None:
    sandbox = FakeSandbox(told("+"), told(ONE))
    spec = BehaviourSpec(style="source", inputs_column="inputs")
    row = Item("one", payload='{"inputs": ["f(9)"]}')
    verifier = BehaviourVerifier(spec, sandbox)
    for item in (dataclasses.replace(row, given=("assert f(1)",)), row):
        await verifier(item, [Sample("one", 0, "", "x = 1")])
    assert sandbox.asked == [["assert f(1)"], ["f(9)"]]
    other = BehaviourSpec(style="function", inputs_column="inputs", entry_point="f")
    [verdict] = await BehaviourVerifier(other, sandbox)(
        dataclasses.replace(row, given=("assert f(1)",)), [Sample("one", 0, "", "x = 1")]
    )
    assert "needs style source" in (verdict.error or "")


def test_rows_are_told_before_anything_is_spent() -> None:
    spec = BehaviourSpec(style="source", inputs_column="inputs")
    assert "not JSON" in (check_item(spec, Item("one", payload='{"inputs": "["}')) or "")
    assert check_reference(spec, Item("one", payload='{"inputs": ["f(1)"]}')) is None
    assert check_reference(BehaviourSpec(style="source"), Item("one")) is None
