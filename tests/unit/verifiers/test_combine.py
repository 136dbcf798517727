"""``all``, ``any`` and ``weighted``: laws over all scores and failures, and what is asked of whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Item, Sample, Verdict
from verifiers.combine import AllVerifier, AnyVerifier, Combination, WeightedVerifier

SAMPLE = Sample("q", 0, "k", "")


class Part:
    """Says the same of every sample and remembers which it was asked about."""

    def __init__(self, score: float | None, tokens: int = 1, name: str = "part") -> None:
        self.name, self.score, self.tokens = name, score, tokens
        self.asked: list[int] = []
        self.closed = 0

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        self.asked += [sample.sample_index for sample in samples]
        error = "unknown" if self.score is None else None
        return [Verdict(self.name, self.score, error, self.tokens) for _ in samples]

    async def close(self) -> None:
        self.closed += 1


def said(combination: Combination) -> Verdict:
    (verdict,) = asyncio.run(combination(Item("q"), [SAMPLE]))
    return verdict


SCORE = st.floats(0, 1)
SCORES = st.lists(SCORE | st.none(), min_size=1, max_size=5)


@given(SCORES)
def test_all_is_the_lowest_and_a_zero_decides(scores: list[float | None]) -> None:
    verdict = said(AllVerifier("all", [Part(score) for score in scores], 10))
    known = [score for score in scores if score is not None]
    if 0 in known:
        assert verdict.score == 0
    else:
        assert verdict.score == (min(known) if len(known) == len(scores) else None)
    assert (verdict.score is None) == (verdict.error is not None)


@given(SCORES)
def test_any_is_the_highest_and_a_one_decides(scores: list[float | None]) -> None:
    verdict = said(AnyVerifier("any", [Part(score) for score in scores], 10))
    known = [score for score in scores if score is not None]
    if 1 in known:
        assert verdict.score == 1
    else:
        assert verdict.score == (max(known) if len(known) == len(scores) else None)


@given(st.lists(SCORE, min_size=1, max_size=5))
def test_all_and_any_mirror_each_other(scores: list[float]) -> None:
    lowest = said(AllVerifier("all", [Part(score) for score in scores], 10)).score
    highest = said(AnyVerifier("any", [Part(1 - score) for score in scores], 10)).score
    assert lowest is not None
    assert highest == pytest.approx(1 - lowest)


WEIGHT = st.floats(0, 1e300)


@given(st.lists(st.tuples(SCORE | st.none(), WEIGHT), min_size=1, max_size=5).filter(lambda p: any(w for _, w in p)))
def test_weighted_is_a_mean(parts: list[tuple[float | None, float]]) -> None:
    weights = [weight for _, weight in parts]
    verdict = said(WeightedVerifier("w", [Part(score) for score, _ in parts], weights, 10))
    largest = max(weights)
    counted = [score for score, weight in parts if weight / largest > 0]
    if any(score is None for score in counted):
        assert verdict.score is None
    else:
        known = [score for score in counted if score is not None]
        assert verdict.score is not None
        assert min(known) - 1e-9 <= verdict.score <= max(known) + 1e-9


@given(st.lists(SCORE, min_size=1, max_size=5))
def test_equal_weights_are_the_plain_mean(scores: list[float]) -> None:
    verdict = said(WeightedVerifier("w", [Part(score) for score in scores], [3.0] * len(scores), 10))
    assert verdict.score == pytest.approx(sum(scores) / len(scores))


async def test_later_parts_are_asked_only_about_open_samples_and_cost_is_summed() -> None:
    class Even(Part):
        async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
            self.asked += [sample.sample_index for sample in samples]
            return [Verdict("even", float(sample.sample_index % 2 == 0), tokens=5) for sample in samples]

    first, second = Even(1.0), Part(1.0, tokens=100)
    samples = [Sample("q", index, "k", "") for index in range(4)]
    verdicts = await AllVerifier("both", [first, second], 10)(Item("q"), samples)
    assert second.asked == [0, 2]
    assert [(v.score, v.tokens) for v in verdicts] == [(1.0, 105), (0.0, 5), (1.0, 105), (0.0, 5)]
    assert verdicts[0].detail == "even 1, part 1"


async def test_a_part_that_raises_or_lies_is_unknown_and_its_cost_is_kept() -> None:
    class Liar(Part):
        async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
            return [Verdict("liar", float("nan"), tokens=7) for _ in samples]

    (verdict,) = await AllVerifier("both", [Liar(0.0, name="liar"), Part(1.0)], 10)(Item("q"), [SAMPLE])
    assert verdict.score is None
    assert verdict.tokens == 8
    assert (verdict.error or "").startswith("liar: broke its contract")
    (verdict,) = await AllVerifier("both", [Liar(0.0, name="liar"), Part(0.0)], 10)(Item("q"), [SAMPLE])
    assert verdict.score == 0.0


async def test_closing_closes_all_parts() -> None:
    parts = [Part(1.0), Part(0.0)]
    await AnyVerifier("any", parts, 10).close()
    assert [part.closed for part in parts] == [1, 1]
