"""Best-of-N's index: its defining equation, its closed forms, its limits."""

import math
import random
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from budgets.pandora import EmpiricalScores, NormalScores, ScorePosterior, best_of_value
from pipeline.errors import SpecError

unit = st.floats(0, 1)
scores = st.lists(unit, min_size=1, max_size=30).map(lambda values: EmpiricalScores(tuple(values)))
normals = st.builds(NormalScores, unit, st.floats(0.01, 1))


@given(normals | scores, st.floats(1e-6, 2.0))
def test_the_reservation_value_solves_its_equation(distribution, cost):
    z = distribution.reservation_value(cost)
    assert distribution.gain_over(z) == pytest.approx(cost, rel=1e-6, abs=1e-9)


@given(normals | scores, st.floats(1e-4, 1.0), unit)
def test_a_box_is_worth_opening_exactly_below_its_reservation_value(distribution, cost, best):
    z = distribution.reservation_value(cost)
    assume(abs(z - best) > 1e-6)
    assert (distribution.gain_over(best) > cost) == (best < z)


@given(normals | scores, unit, unit)
def test_gain_falls_in_the_best_and_no_faster(distribution, one, two):
    low, high = min(one, two), max(one, two)
    drop = distribution.gain_over(low) - distribution.gain_over(high)
    assert -1e-12 <= drop <= high - low + 1e-12


def test_normal_gain_against_a_simulation():
    rng = random.Random(0)
    draws = [rng.gauss(0.5, 0.2) for _ in range(200_000)]
    for best in (0.2, 0.5, 0.9):
        mean = statistics.fmean(max(0.0, x - best) for x in draws)
        assert NormalScores(0.5, 0.2).gain_over(best) == pytest.approx(mean, abs=2e-3)


def test_normal_gain_at_the_mean_is_known():
    assert NormalScores(0.5, 0.2).gain_over(0.5) == pytest.approx(0.2 / math.sqrt(2 * math.pi))


@given(st.lists(unit, min_size=1, max_size=20), unit)
def test_empirical_gain_is_the_mean(values, best):
    expected = statistics.fmean(max(0.0, x - best) for x in values)
    assert EmpiricalScores(tuple(values)).gain_over(best) == pytest.approx(expected, abs=1e-12)


def test_empirical_reservation_by_hand():
    two = EmpiricalScores((1.0, 0.0))
    assert two.reservation_value(0.25) == 0.5  # half of the time 1 − z
    assert two.reservation_value(0.5) == 0.0
    assert two.reservation_value(0.75) == pytest.approx(-0.25)  # below every score: mean − cost
    assert two.reservation_value(0.0) == 1.0


def test_costless_and_certain_boxes():
    assert NormalScores(0.5, 0.1).reservation_value(0.0) == math.inf
    assert NormalScores(0.5, 0.0).reservation_value(0.2) == pytest.approx(0.3)
    assert NormalScores(0.5, 0.0).gain_over(0.3) == pytest.approx(0.2)
    assert NormalScores(0.5, 0.0).gain_over(0.8) == 0.0


@given(st.lists(unit, max_size=20), unit, st.floats(0, 1), st.floats(0.1, 10))
def test_the_posterior_is_that_of_prior_and_scores_pooled(values, mean, spread, weight):
    posterior = ScorePosterior(mean, spread, weight)
    for value in values:
        posterior.add(value)
    total = weight + len(values)
    pooled = (weight * mean + sum(values)) / total
    square = (weight * (spread**2 + mean**2) + sum(v * v for v in values)) / total
    found = posterior.scores()
    assert found.mean == pytest.approx(pooled, abs=1e-9)
    assert found.spread**2 == pytest.approx(max(0.0, square - pooled**2), abs=1e-9)
    assert (posterior.best, posterior.count) == (max(values, default=None), len(values))


def test_two_equal_scores_do_not_end_a_search_but_many_do():
    posterior = ScorePosterior()
    gains = []
    for _ in range(50):
        posterior.add(0.5)
        gains.append(posterior.scores().gain_over(0.5))
    assert gains[1] > 0.05
    assert gains[-1] < gains[1] / 3


def test_the_bid():
    normal = NormalScores(0.5, 0.2)
    assert best_of_value(0.5, normal, 100, stakes=3) == pytest.approx(3 * normal.gain_over(0.5) / 100)
    assert best_of_value(None, normal, 100, stakes=0.0) == math.inf
    assert best_of_value(1.0, normal, 100) == 0.0
    assert best_of_value(0.9, NormalScores(5.0, 0.1), 1) == pytest.approx(0.1)  # scores end at 1


@given(unit, normals, st.floats(1e-4, 0.1), st.floats(1, 1000), st.floats(0.1, 10))
def test_bidding_at_a_price_is_weitzmans_rule(best, normal, price, tokens, stakes):
    z = normal.reservation_value(price * tokens / stakes)
    assume(abs(z - best) > 1e-6)
    assume(normal.gain_over(best) <= 1.0 - best)
    assert (best_of_value(best, normal, tokens, stakes) > price) == (best < z)


@pytest.mark.parametrize("broken", [math.nan, -0.1, 1.1, math.inf])
def test_malformed_scores(broken):
    with pytest.raises(SpecError, match="score is"):
        ScorePosterior().add(broken)
    with pytest.raises(SpecError, match="best is"):
        best_of_value(broken, NormalScores(0.5, 0.1), 10)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: NormalScores(math.nan, 0.1),
        lambda: NormalScores(0.5, -0.1),
        lambda: NormalScores(0.5, math.inf),
        lambda: EmpiricalScores(()),
        lambda: EmpiricalScores((0.1, math.nan)),
        lambda: ScorePosterior(samples=0.0),
        lambda: ScorePosterior(mean=math.nan),
        lambda: NormalScores(0.5, 0.1).reservation_value(-1.0),
        lambda: EmpiricalScores((0.1,)).reservation_value(math.nan),
        lambda: best_of_value(0.5, NormalScores(0.5, 0.1), 0),
        lambda: best_of_value(0.5, NormalScores(0.5, 0.1), 10, stakes=math.nan),
        lambda: best_of_value(0.5, NormalScores(0.5, 0.1), 10, stakes=-1.0),
    ],
)
def test_malformed_input(broken):
    with pytest.raises(SpecError):
        broken()
