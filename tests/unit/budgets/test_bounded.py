"""Beta scores: closed forms, numeric integration, ends and degenerate shapes."""

import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from budgets.bounded import BetaScores, beta_below
from pipeline.errors import SpecError

UNIFORM = BetaScores(0.5, math.sqrt(1 / 12))
MEANS, SPREADS, BESTS = st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)


@pytest.mark.parametrize("best", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_uniform_scores(best):
    assert UNIFORM.gain_over(best) == pytest.approx((1 - best) ** 2 / 2, abs=1e-15)


@pytest.mark.parametrize("best", [0.01, 0.3, 0.7, 0.99])
def test_rising_scores(best):
    # Beta(2, 1), density 2x: mean 2/3, variance 1/18; ∫(x − z) 2x dx from z to 1 = 2/3 − z + z³/3.
    assert BetaScores(2 / 3, math.sqrt(1 / 18)).gain_over(best) == pytest.approx(2 / 3 - best + best**3 / 3)


def test_reservation_value_of_uniform_scores():
    # (1 − z)² / 2 = .02 at z = .8; a cost above the mean takes z below 0.
    assert UNIFORM.reservation_value(0.02) == pytest.approx(0.8)
    assert UNIFORM.reservation_value(0.7) == pytest.approx(-0.2)


def test_ends_and_shapes_without_a_density():
    assert BetaScores(0.3, 0.0).gain_over(0.2) == pytest.approx(0.1)
    assert BetaScores(0.3, 0.0).gain_over(0.4) == 0.0
    # As wide as it can be: 1 with probability .3, else 0.
    assert BetaScores(0.3, math.sqrt(0.21)).gain_over(0.4) == pytest.approx(0.3 * 0.6)
    assert BetaScores(0.3, 0.9).gain_over(0.4) == pytest.approx(0.3 * 0.6)
    assert [BetaScores(mean, 0.2).gain_over(0.5) for mean in (0.0, 1.0)] == [0.0, 0.5]


@settings(deadline=None)
@given(MEANS, SPREADS, BESTS, BESTS)
# 1 − z does not tell a z as small as this from 0.
@example(0.5, 0.48339318535745407, 1.6668066955097407e-16, 1.0)
@example(0.5, 0.49347850647369307, 1.6772715237865015e-16, 0.0)
def test_gains_are_bounded_fall_and_never_faster_than_the_best_rises(mean, spread, one, other):
    low, high = sorted((one, other))
    scores = BetaScores(mean, spread)
    less, more = scores.gain_over(high), scores.gain_over(low)
    assert max(0.0, mean - low) - 1e-9 <= more <= min(mean, 1 - low) + 1e-9
    assert less <= more + 1e-9
    assert more - less <= high - low + 1e-9


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 0.95), st.floats(0.02, 0.25), st.floats(0.05, 0.95))
def test_the_gain_is_the_area_above_the_distribution_function(mean, spread, best):
    scores = BetaScores(mean, spread)
    size = mean * (1 - mean) / spread**2 - 1
    assume(size > 0.1)
    steps = 2000
    width = (1 - best) / steps
    area = width * math.fsum(
        1 - beta_below(best + (step + 0.5) * width, mean * size, (1 - mean) * size) for step in range(steps)
    )
    assert scores.gain_over(best) == pytest.approx(area, abs=2e-4)


@settings(deadline=None)
@given(MEANS, SPREADS, st.floats(0, 1))
def test_the_reservation_value_is_the_root(mean, spread, cost):
    scores = BetaScores(mean, spread)
    found = scores.reservation_value(cost)
    assert found <= 1.0
    assert scores.gain_over(found) == pytest.approx(cost, abs=1e-6)


def test_binomial_tails():
    # I_x(k, n − k + 1) = P(Binomial(n, x) >= k).
    for n, k, x in ((5, 2, 0.3), (40, 30, 0.9), (1, 1, 0.25)):
        tail = sum(math.comb(n, i) * x**i * (1 - x) ** (n - i) for i in range(k, n + 1))
        assert beta_below(x, k, n - k + 1) == pytest.approx(tail)
    assert (beta_below(0.0, 2, 3), beta_below(1.0, 2, 3)) == (0.0, 1.0)


@pytest.mark.parametrize(("mean", "spread"), [(math.nan, 0.1), (1.1, 0.1), (0.5, -1), (0.5, math.inf)])
def test_moments_that_cannot_be(mean, spread):
    with pytest.raises(SpecError):
        BetaScores(mean, spread)
