"""Plain functions as verifiers: good ones, and every way in which a user's code goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.errors import SpecError
from pipeline.records import Item, Sample, Verdict
from pipeline.verifier_spec import FunctionSpec
from verifiers.function import MAX_STUCK, FunctionVerifier, find_function

ITEM = Item("q", reference="1")
SAMPLES = [Sample("q", index, "k", "", answer=str(index)) for index in range(3)]
FREE = threading.Event()


def passes(item: Item, sample: Sample) -> bool:
    return sample.answer == item.reference


async def passes_async(item: Item, sample: Sample) -> float:
    return float(sample.answer == item.reference)


def batch(item: Item, samples: Sequence[Sample]) -> list[Any]:
    return [passes(item, sample) for sample in samples]


class Called:
    async def __call__(self, item: Item, sample: Sample) -> float:
        return float(passes(item, sample))


called = Called()


def made(function: Any, **fields: Any) -> FunctionVerifier:
    return FunctionVerifier(FunctionSpec(function="a.b:c", **fields), function)


@pytest.mark.parametrize(
    ("function", "fields"), [(passes, {}), (passes_async, {}), (batch, {"batch": True}), (called, {})]
)
async def test_functions_of_every_shape(function: Any, fields: dict[str, Any]) -> None:
    verdicts = await made(function, **fields)(ITEM, SAMPLES)
    assert verdicts == [Verdict("function", 0.0), Verdict("function", 1.0), Verdict("function", 0.0)]


def raises(item: Item, sample: Sample) -> float:
    raise KeyError("x")


def exits(item: Item, sample: Sample) -> float:
    raise SystemExit(3)


def stops(item: Item, sample: Sample) -> float:
    raise StopIteration


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (raises, "KeyError: 'x'"),
        (exits, "RuntimeError: SystemExit(3)"),
        (stops, "RuntimeError: StopIteration()"),
        (lambda item, sample: float("nan"), "the function must return a score in [0, 1], got nan"),
        (lambda item, sample: 2, "the function must return a score in [0, 1], got 2.0"),
        (lambda item, sample: None, "the function gave no score"),
        (lambda item, sample: [1], "the function must return a number or bool, got list"),
    ],
)
async def test_a_misbehaving_function_gives_error_verdicts(function: Any, error: str) -> None:
    assert await made(function)(ITEM, SAMPLES) == [Verdict("function", error=error)] * 3


@pytest.mark.parametrize("said", [[1.0], "abc", None, {"a": 1, "b": 2, "c": 3}])
async def test_a_batch_of_the_wrong_shape_gives_error_verdicts(said: Any) -> None:
    verdicts = await made(lambda item, samples: said, batch=True)(ITEM, SAMPLES)
    assert [(verdict.score, bool(verdict.error)) for verdict in verdicts] == [(None, True)] * 3


async def test_a_hanging_function_is_bounded_and_after_a_few_refused() -> None:
    FREE.clear()
    verifier = made(lambda item, sample: FREE.wait(60), timeout=0.01)
    try:
        verdicts = await verifier(ITEM, [SAMPLES[0]] * (MAX_STUCK + 3))
        assert [verdict.error for verdict in verdicts[:MAX_STUCK]] == [
            "TimeoutError: no result within 0.01 s"
        ] * MAX_STUCK
        again = await verifier(ITEM, SAMPLES)
        assert ["hang; it is not called again" in (verdict.error or "") for verdict in again] == [True] * 3
        assert verifier.stuck
    finally:
        FREE.set()
    for thread in threading.enumerate():
        if thread.name == "verifier function":
            thread.join(60)
    assert not verifier.stuck


def test_a_function_is_found_by_name() -> None:
    assert find_function(f"{__name__}:passes") is passes
    assert find_function(f"{__name__}:Called.__call__") is Called.__call__


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("no_such_module:f", "cannot import"),
        (f"{__name__}:nothing", "has no 'nothing'"),
        (f"{__name__}:ITEM", "a Item"),
    ],
)
def test_a_function_that_is_not_there_is_told(path: str, error: str) -> None:
    with pytest.raises(SpecError, match=error):
        find_function(path)
