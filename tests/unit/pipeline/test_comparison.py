"""Statistics of a comparison: against values worked by hand, and what must always hold."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.comparison import (
    Cost,
    Measured,
    Resamples,
    best_of,
    cost_to_reach,
    doublings,
    mcnemar,
    paired_p,
)
from pipeline.replay_intervals import LARGE

BITS = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


# --- baselines ---------------------------------------------------------------------------------------------------


def test_pass_at_k_by_hand() -> None:
    # 2 of 4 right: pass@1 = 1/2, pass@2 = 1 - C(2,2)/C(4,2) = 5/6, pass@3 = 1.
    scores = np.array([[1.0, 0.0, 0.0, 1.0]])
    assert [best_of(scores, k)[0] for k in (1, 2, 3, 4)] == pytest.approx([1 / 2, 5 / 6, 1, 1])


@given(BITS, st.data())
def test_best_of_is_chen_s_estimator_where_scores_are_bits(bits: list[float], data: st.DataObject) -> None:
    n, c = len(bits), int(sum(bits))
    k = data.draw(st.integers(1, n))
    assert best_of(np.array([bits]), k)[0] == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_best_of_is_the_mean_over_all_choices(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    choices = [max(chosen) for chosen in itertools.combinations(scores, k)]
    assert best_of(np.array([scores]), k)[0] == pytest.approx(sum(choices) / len(choices))


@pytest.mark.parametrize("k", [0, 4])
def test_best_of_more_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"the best of {k} "):
        best_of(np.zeros((2, 3)), k)


@pytest.mark.parametrize(
    ("most", "found"), [(0, []), (1, [1]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (40, [1, 2, 4, 8, 16, 32, 40])]
)
def test_doublings(most: int, found: list[int]) -> None:
    assert doublings(most) == found


# --- paired tests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 10, 2 / 1024),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (2, 1, 1.0),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_two_sided_binomial_test(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1)) / 2**n
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(min(1.0, 2 * tail))


def test_bits_are_tested_exactly_and_shares_by_flips() -> None:
    gained = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 90)
    assert paired_p(gained, 0) == (mcnemar(8, 2), "mcnemar")
    p, test = paired_p(gained / 2, 0)
    # The same question put to random flips: within four standard errors of the exact p.
    exact = mcnemar(8, 2)
    assert test == "sign flips"
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9_999))


def test_no_difference_is_none() -> None:
    assert paired_p(np.zeros(7), 0) == (1.0, "mcnemar")
    assert paired_p(np.array([0.5, -0.5]), 0) == (1.0, "sign flips")


def test_many_questions_take_the_normal_limit_of_the_flips() -> None:
    apart = np.where(np.arange(4 * LARGE) % 2 == 0, 0.5, -0.25)
    apart[: 2 * LARGE] = np.where(np.arange(2 * LARGE) % 2 == 0, 0.25, -0.25)
    z = abs(apart.sum()) / math.sqrt((apart**2).sum())
    assert paired_p(apart, 0) == (pytest.approx(math.erfc(z / math.sqrt(2))), "sign flips")


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.integers(0, 3))
def test_p_is_a_probability_never_zero_and_blind_to_the_order_of_the_two(apart: list[float], seed: int) -> None:
    there, back = (paired_p(np.array(sign) * np.array(apart), seed)[0] for sign in (1, -1))
    assert 0 < there <= 1
    assert there == back


# --- intervals ---------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_resampled_questions() -> None:
    right = np.array([1.0] * 30 + [0.0] * 70)
    found = Resamples(100, 0).mean(right)
    assert found.mean == pytest.approx(0.3)
    # The binomial's 2.5% and 97.5% quantiles at n = 100, p = .3 are 21 and 39.
    assert found.interval == pytest.approx((0.21, 0.39), abs=0.011)
    assert Resamples(100, 0).mean(right) == found
    assert Resamples(100, 1).mean(right) != found


def test_the_same_questions_are_drawn_for_every_column() -> None:
    rng = np.random.default_rng(0)
    column = rng.random(50)
    means = Resamples(50, 0).means(column, 2 * column, 1 - column)
    assert means[:, 1] == pytest.approx(2 * means[:, 0])
    assert means[:, 2] == pytest.approx(1 - means[:, 0])


def test_a_constant_difference_has_no_width() -> None:
    first = np.linspace(0.0, 0.5, 40)
    found = Resamples(40, 0).difference(first, first + 0.25)
    assert (found.mean, *found.interval) == pytest.approx((0.25, 0.25, 0.25))
    assert found.p == 1 / 10_000


def test_many_questions_take_the_bootstrap_s_limit() -> None:
    right = np.tile([1.0, 0.0, 0.0], LARGE)
    means = Resamples(len(right), 0).means(right, 1 - right)
    assert means.sum(axis=1) == pytest.approx(np.ones(len(means)))
    low, high = Resamples(len(right), 0).mean(right).interval
    reach = 1.96 * math.sqrt(2 / 9 / len(right))
    assert (low, high) == pytest.approx((1 / 3 - reach, 1 / 3 + reach), abs=reach / 5)


# --- the cost of an accuracy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "cost"),
    [
        (0.3, Cost(100, True)),
        (0.4, Cost(100, True)),
        (0.45, Cost(150, False)),
        (0.5, Cost(200, False)),
        # The dip at 300 is passed over: what 200 tokens gave, 300 can give.
        (0.55, Cost(350, False)),
        (0.6, Cost(400, False)),
        (0.61, Cost(math.inf, False)),
    ],
)
def test_cost_to_reach_by_hand(wanted: float, cost: Cost) -> None:
    points = ([400.0, 100, 200, 300], [0.6, 0.4, 0.5, 0.45])
    assert cost_to_reach(*points, wanted) == (pytest.approx(cost.amount), cost.at_most)


@given(SHARES, st.data())
def test_more_accuracy_never_costs_less(accuracy: list[float], data: st.DataObject) -> None:
    tokens = data.draw(st.lists(st.floats(1, 1e6), min_size=len(accuracy), max_size=len(accuracy)))
    wanted = sorted(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=2)))
    low, high = (cost_to_reach(tokens, accuracy, one).amount for one in wanted)
    assert low <= high
    assert min(tokens) <= low
    assert low <= max(tokens) or low == math.inf
    assert (high == math.inf) == (wanted[1] - 1e-9 > max(accuracy))


def test_reach_says_where_it_is_not_reached() -> None:
    right = [np.tile([1.0, 0.0], 50), np.zeros(100)]
    costs = [np.full(100, 25.0), np.full(100, 15.0)]
    found = Resamples(100, 0).reach(right, costs, 0.25)
    assert (found.cost, found.at_most, found.reached) == (pytest.approx(20), False, 1.0)
    low, high = found.interval
    assert 15 < low < 20 < high < 25
    missed = Resamples(100, 0).reach(right, costs, 0.75)
    assert missed == (None, (None, None), False, 0.0)
    edge = Resamples(100, 0).reach(right, costs, 0.5)
    assert edge.cost == pytest.approx(25)
    assert 0 < edge.reached < 1
    assert edge.interval[0] is not None
    assert edge.interval[1] is None


def test_what_a_question_cost_counts_its_checks() -> None:
    spent = np.array([10.0, 20.0])
    assert list(Measured(np.ones(2), spent, spent / 10, np.ones(2)).tokens) == [11.0, 22.0]
