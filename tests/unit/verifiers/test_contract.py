"""``checked`` turns whatever a verifier does into one valid verdict a sample."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline.errors import VerifierError
from pipeline.records import Item, Sample, Verdict
from verifiers.contract import MAX_ERROR, checked

ITEM = Item("q", prompt="?")
SAMPLES = [Sample("q", index, prompt_key="k", text=str(index)) for index in range(3)]


class Fake:
    """Returns what it is given, or raises it."""

    name = "fake"

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome
        self.closed = 0

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        verdicts: list[Verdict] = self._outcome
        return verdicts

    async def close(self) -> None:
        self.closed += 1


async def judge(outcome: Any) -> list[Verdict]:
    return await checked(Fake(outcome), seconds=30)(ITEM, SAMPLES)


def errors(error: str) -> list[Verdict]:
    return [Verdict("fake", error=error)] * 3


async def test_valid_verdicts_pass_unchanged() -> None:
    verdicts = [Verdict("fake", 0.0), Verdict("fake", 1, tokens=7), Verdict("fake", error="cannot say", detail="d")]
    assert await judge(verdicts) == verdicts


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.01, 1.01, "1"])
async def test_a_bad_score_is_an_error_and_keeps_its_cost(score: Any) -> None:
    good = Verdict("fake", 1.0)
    first, bad, last = await judge([good, Verdict("fake", score, tokens=9), good])
    assert (first, last) == (good, good)
    assert (bad.score, bad.tokens) == (None, 9)
    assert repr(score) in (bad.error or "")


@pytest.mark.parametrize("bad", [Verdict("fake"), Verdict("fake", 1.0, error="but"), None, 0.5])
async def test_a_bad_verdict_is_an_error(bad: Any) -> None:
    verdicts = await judge([bad, bad, bad])
    assert [(verdict.score, bool(verdict.error)) for verdict in verdicts] == [(None, True)] * 3


@pytest.mark.parametrize(("outcome", "got"), [([], "0"), ([Verdict("fake", 1.0)] * 4, "4"), (None, "NoneType")])
async def test_the_wrong_number_of_verdicts_is_an_error_for_all(outcome: Any, got: str) -> None:
    assert await judge(outcome) == errors(f"broke its contract: one verdict a sample (3) expected, got {got}")


@pytest.mark.parametrize(
    "error", [VerifierError("gone"), KeyError("x"), TimeoutError("its own"), ExceptionGroup("g", [OSError()])]
)
async def test_an_exception_is_an_error_for_all(error: Exception) -> None:
    assert await judge(error) == errors(f"{type(error).__name__}: {error}")


async def test_a_long_error_is_cut() -> None:
    (first, *_) = await judge(ValueError("x" * 10_000))
    assert len(first.error or "") == MAX_ERROR


class Stuck:
    """Never answers; remembers that it was cancelled."""

    name = "fake"

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = False

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True
        return []


async def test_a_call_past_its_time_is_cancelled_and_an_error() -> None:
    stuck = Stuck()
    assert await checked(stuck, seconds=0.01)(ITEM, SAMPLES) == errors("no verdict within 0.01 s")
    assert stuck.cancelled


async def test_cancellation_passes_through() -> None:
    stuck = Stuck()
    task = asyncio.create_task(checked(stuck, seconds=60)(ITEM, SAMPLES))
    await stuck.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stuck.cancelled


async def test_name_and_close_are_those_of_the_verifier_inside() -> None:
    fake = Fake([])
    outer = checked(checked(fake, seconds=1), seconds=1)
    await outer.close()
    assert (outer.name, fake.closed) == ("fake", 1)
    await checked(Stuck(), seconds=1).close()


def test_a_verifier_is_any_callable_of_that_shape() -> None:
    takes: Callable[..., Any] = checked
    assert takes(Stuck(), 1).name == "fake"
