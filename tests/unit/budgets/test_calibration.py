"""The fit of a strength: recovered from rows made with one, and its behaviour where rows say little."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.calibration import Labelled, calibrate
from budgets.evidence import DEFAULT_STRENGTHS, Evidence
from pipeline.errors import SpecError


def made_with(strength: float, questions: int, seed: int = 0) -> list[Labelled]:
    """Pairs of samples of which the model of the fit says which is right. Each question has its own level of scores."""
    rng = random.Random(seed)
    rows = []
    for q in range(questions):
        level = rng.uniform(-3, 0)
        x, y = level - rng.random(), level - rng.random()
        first = rng.random() < 1 / (1 + math.exp(-strength * (x - y)))
        rows += [Labelled(f"q{q}", x, first), Labelled(f"q{q}", y, not first)]
    return rows


@pytest.mark.parametrize("strength", [2.0, 8.0, 16.0])
def test_recovers_the_strength_the_rows_were_made_with(strength):
    fitted = calibrate(made_with(strength, 4000)).strength
    assert fitted == pytest.approx(strength, rel=0.15)


def test_it_is_the_maximum_of_the_log_posterior():
    rows = made_with(5.0, 200)

    def log_posterior(strength: float) -> float:
        total = -0.5 * ((strength - 8.0) / 4.0) ** 2
        for one, two in zip(rows[::2], rows[1::2], strict=True):
            gap = (one.score - two.score) * (1 if one.right else -1)
            total -= math.log1p(math.exp(-strength * gap))
        return total

    best = calibrate(rows, Evidence("mean_logprob", 8.0)).strength
    assert log_posterior(best) >= max(log_posterior(best * 0.99), log_posterior(best * 1.01))


def test_the_more_rows_the_nearer_to_what_they_say():
    def moved(questions: int) -> float:
        return statistics.fmean(8.0 - calibrate(made_with(1.0, questions, seed)).strength for seed in range(20))

    assert 0.0 < moved(1) < moved(10) < moved(300) < 7.5
    assert moved(1) < 4.0  # one standard deviation of the prior
    assert moved(300) > 6.0


def test_scores_that_mislead_count_nothing():
    rows = [row for q in range(200) for row in (Labelled(f"{q}", -1.0, True), Labelled(f"{q}", -0.1, False))]
    assert calibrate(rows).strength == 0.0


def test_scores_that_always_tell_are_bounded():
    rows = [row for q in range(5000) for row in (Labelled(f"{q}", -1e-3, True), Labelled(f"{q}", -2e-3, False))]
    assert 8.0 < calibrate(rows).strength <= 16 * 8.0


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Labelled("q", -0.1, True), Labelled("q", -0.5, True)],
        [Labelled("q", -0.1, True), Labelled("r", -0.5, False)],
        [Labelled("q", None, True), Labelled("q", -0.5, False)],
        [Labelled("q", math.nan, True), Labelled("q", -math.inf, False)],
    ],
)
@pytest.mark.parametrize("kind", ["auto", "sum_logprob", "group_confidence"])
def test_rows_that_say_nothing_leave_it_where_it_was(rows, kind):
    assert calibrate(rows, Evidence(kind, fade=7.0)) == Evidence(kind, DEFAULT_STRENGTHS[kind], 7.0)


@given(st.lists(st.builds(Labelled, st.sampled_from("pqr"), st.none() | st.floats(), st.booleans()), max_size=30))
def test_any_rows_give_a_usable_strength(rows):
    evidence = calibrate(rows)
    assert 0.0 <= evidence.strength <= 16 * 8.0


def test_absurdly_wide_scores_do_not_overflow():
    rows = [Labelled("q", 0.0, True), Labelled("q", -1e308, True), Labelled("q", 1e308, False)]
    assert calibrate(rows * 3).strength == 0.0


def test_the_order_of_rows_does_not_matter():
    rows = made_with(4.0, 60)
    assert calibrate(rows[::-1]).strength == pytest.approx(calibrate(rows).strength, rel=1e-9)


@pytest.mark.parametrize("start", [Evidence("votes"), Evidence("auto", 0.0)])
def test_nothing_to_fit(start):
    with pytest.raises(SpecError, match="nothing to fit"):
        calibrate([], start)
