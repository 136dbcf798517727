"""Selection among scored samples: worked out by hand, against brute force, and on ties."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.selection import (
    Candidate,
    Pick,
    argmax,
    best_of_shares,
    chi_squared_threshold,
    majority_of_the_bests,
    pessimistic,
    soft,
    subsample_size,
    weighted,
)
from pipeline.errors import SpecError

POOLS = st.lists(
    st.builds(Candidate, st.sampled_from("abc"), st.sampled_from([0.0, 0.2, 0.5, 0.5, 0.9, 1.0])),
    min_size=1,
    max_size=20,
)


def pool(text: str) -> list[Candidate]:
    """``a.9 b.5`` as candidates."""
    return [Candidate(word[0], float(word[1:])) for word in text.split()]


def test_argmax_takes_the_highest_score_and_its_confidence_is_that_score():
    assert argmax(pool("a.2 b.9 a.3 a.4")) == Pick(1, 0.9)


def test_equal_scores_go_to_the_answer_with_more_votes_and_then_to_the_first():
    assert argmax(pool("a1 b1 b0 c1")).place == 1
    assert argmax(pool("a0 b0")).place == 0


def test_weighted_sums_scores_by_answer_and_is_represented_by_the_best_of_it():
    # a: .4 + .5 = .9; b: .8.
    picked = weighted(pool("b.8 a.4 a.5"))
    assert picked.place == 2
    assert 0.5 < picked.confidence < 0.6
    # All scores 0: every sum is 0, and votes decide.
    assert weighted(pool("a0 b0 b0")) == Pick(1, 0.5)


def test_soft_draws_by_the_exponential_of_scores():
    # λ = 1/ln 2: a score higher by 1 is twice as likely, so the shares are 1/3 and 2/3.
    two = pool("a0 b1")
    assert [soft(two, u, 1 / math.log(2)).place for u in (0.0, 0.333, 0.334, 0.999)] == [0, 0, 1, 1]
    assert soft(two, 0.0, 1e-6) == Pick(1, 1.0)


def test_the_chi_squared_threshold_by_hand():
    # Nobody ruled out: mean − β. Scores .2 .4 .6 with β = .3: λ = .4 − .3.
    assert chi_squared_threshold([0.6, 0.2, 0.4], 0.3) == pytest.approx(0.1)
    # β = .1: all three would give λ = .3 > .2; the two highest give (.6 + .4 − 3 · .1) / 2 = .35. Indeed the mean
    # weight is (.25 + .05) / .1 / 3 = 1.
    assert chi_squared_threshold([0.6, 0.2, 0.4], 0.1) == pytest.approx(0.35)


def test_pessimistic_weights_rise_linearly_above_the_threshold():
    # λ = .35: weights 0, .05, .25; shares 0, 1/6, 5/6.
    three = pool("a.2 b.4 c.6")
    assert [pessimistic(three, u, 0.1).place for u in (0.0, 0.166, 0.167, 0.999)] == [1, 1, 2, 2]
    # A lead of N · β over the others is argmax at any u.
    assert {pessimistic(pool("a.2 b.9"), u, 0.3).place for u in (0.0, 0.5, 0.999)} == {1}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(1e-3, 10))
def test_the_chi_squared_threshold_makes_the_mean_weight_one(scores, beta):
    threshold = chi_squared_threshold(scores, beta)
    assert math.fsum(max(0.0, (score - threshold) / beta) for score in scores) / len(scores) == pytest.approx(1.0)


@given(
    st.lists(st.builds(Candidate, st.sampled_from("ab"), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=4),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_the_closed_form_is_the_bootstrap_counted_out(candidates, m):
    expected = dict.fromkeys((one.answer for one in candidates), 0.0)
    draws = list(itertools.product(candidates, repeat=m))
    for draw in draws:
        highest = max(one.score for one in draw)
        # Ties within a bootstrap are broken evenly among the draws in it.
        tied = [one for one in draw if one.score == highest]
        for one in tied:
            expected[one.answer] += 1 / len(tied) / len(draws)
    assert best_of_shares(candidates, m) == pytest.approx(expected)


def test_best_of_m_shares_by_hand():
    # n = 4, m = 2: the k-th lowest wins with (2k − 1) / 16: a (1st, 3rd) 1/16 + 5/16, b 3/16, c 7/16.
    assert best_of_shares(pool("a.1 b.2 a.3 c.4"), 2) == pytest.approx({"a": 6 / 16, "b": 3 / 16, "c": 7 / 16})


def test_a_single_lucky_score_loses_to_an_answer_that_wins_most_subsets():
    many = pool("a.90 a.89 a.88 a.87 b.91 b.1 b.1 c.2")
    assert argmax(many).place == 4
    assert majority_of_the_bests(many).place == 0


def test_the_subsample_is_where_the_distribution_of_bests_moves_least():
    # One answer: the distribution never moves, and the largest m is taken.
    assert subsample_size(pool("a.1 a.2 a.3")) == 3
    assert subsample_size(pool("a.1")) == 1
    # n = 4: m is 4, 3, 2 or 1 (⌊.75^j · 4⌋). The best alone says b: its share is 1 − (3/4)^m = 175/256, 148/256,
    # 112/256, 64/256: moving by 27, 36 and 48 (and as much the other way), so m = 4.
    assert subsample_size(pool("a.1 a.2 a.3 b.4")) == 4


@given(POOLS, st.floats(0, 1, exclude_max=True))
def test_every_rule_picks_a_candidate_with_a_confidence(candidates, u):
    for picked in (
        argmax(candidates),
        weighted(candidates),
        soft(candidates, u),
        pessimistic(candidates, u),
        majority_of_the_bests(candidates),
    ):
        assert picked.place in range(len(candidates))
        assert 0.0 <= picked.confidence <= 1.0


@given(POOLS, st.integers(1, 30))
def test_shares_sum_to_one(candidates, m):
    assert math.fsum(best_of_shares(candidates, m).values()) == pytest.approx(1.0)


@given(POOLS, st.randoms(use_true_random=False))
def test_rules_that_rank_do_not_hang_on_the_order_but_for_ties(candidates, rng: random.Random):
    distinct = [Candidate(one.answer, place / 32) for place, one in enumerate(candidates, start=1)]
    shuffled = rng.sample(distinct, len(distinct))
    assert distinct[argmax(distinct).place] == shuffled[argmax(shuffled).place]


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none(value):
    with pytest.raises(SpecError, match="softness is"):
        soft(pool("a1"), 0.5, value)
    with pytest.raises(SpecError, match="pessimism is"):
        pessimistic(pool("a1"), 0.5, value)
