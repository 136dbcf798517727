"""Tallies and posteriors: against brute force, and against plain numeric integration."""

import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.fraction import beta_fraction
from budgets.votes import _EPSILON, _MAX_TERMS, Tally, _beta_half, p_lead, p_mode
from pipeline.errors import SpecError


def tally_of(*answers: str | None) -> Tally:
    tally = Tally()
    for answer in answers:
        tally.add(answer)
    return tally


def integrated(v1: float, v2: float, steps: int = 20_000) -> float:
    """Mass of Beta(v1+1, v2+1) above 1/2 by the midpoint rule."""
    log_norm = math.lgamma(v1 + v2 + 2) - math.lgamma(v1 + 1) - math.lgamma(v2 + 1)
    width = 0.5 / steps
    points = (0.5 + (i + 0.5) * width for i in range(steps))
    return math.fsum(math.exp(log_norm + v1 * math.log(x) + v2 * math.log1p(-x)) * width for x in points)


@given(st.lists(st.sampled_from(["a", "b", "c", None])))
def test_tally_equals_a_counter(answers):
    tally = tally_of(*answers)
    counts = Counter(answer for answer in answers if answer is not None)
    ranked = [*sorted(counts.values(), reverse=True), 0, 0]
    assert dict(tally.counts) == counts
    assert (tally.n, tally.valid) == (len(answers), sum(counts.values()))
    assert (tally.lead_weight, tally.runner_up_weight) == (ranked[0], ranked[1])
    seen: Counter = Counter()
    first_to_reach = None
    for answer in answers:
        if answer is not None:
            seen[answer] += 1
            if first_to_reach is None and seen[answer] == ranked[0]:
                first_to_reach = answer
    assert tally.leader == first_to_reach


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.01, 3.0)), min_size=1))
def test_weighted_lead_and_runner_up(votes):
    tally = Tally()
    weights: dict[str, float] = {}
    for answer, weight in votes:
        tally.add(answer, weight)
        weights[answer] = weights.get(answer, 0.0) + weight
    ranked = [*sorted(weights.values(), reverse=True), 0.0]
    assert tally.lead_weight == ranked[0] == weights[tally.leader]
    assert tally.runner_up_weight == ranked[1]


def test_tie_goes_to_who_got_there_first():
    assert tally_of("a", "b", "b", "a").leader == "b"


def test_streak_counts_parsed_repeats_only():
    assert tally_of("a", "b", "b").streak == 2
    assert tally_of("b", "b", None).streak == 0
    assert tally_of(None, None).streak == 0


def test_counts_cannot_be_written():
    with pytest.raises(TypeError):
        tally_of("a").counts["a"] = 9.0


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0])
def test_malformed_weight_is_refused(weight):
    with pytest.raises(SpecError, match="weight of a vote"):
        Tally().add("a", weight)
    with pytest.raises(SpecError, match="votes are"):
        p_lead(weight, 1)


def test_nothing_known_is_a_coin():
    assert p_lead(0, 0) == Tally().p_lead == 0.5


@pytest.mark.parametrize(("v1", "v2"), [(0, 0), (1, 0), (4, 0), (6, 0), (5, 3), (40, 0), (21, 19), (3, 8)])
def test_closed_form_matches_integration(v1, v2):
    assert p_lead(v1, v2) == pytest.approx(integrated(v1, v2), abs=1e-7)


def test_closed_form_is_exact():
    assert p_lead(5, 3) == float(Fraction(sum(math.comb(9, k) for k in range(6)), 2**9))


@given(st.integers(0, 400), st.integers(0, 400))
def test_weighted_form_agrees_with_the_closed_form(v1, v2):
    nudge = 1e-9  # just off whole numbers, so that the continued fraction is used
    assert p_lead(v1 + nudge, v2 + nudge) == pytest.approx(p_lead(v1, v2), abs=1e-8)


@given(st.floats(0, 60), st.floats(0, 60))
def test_weighted_form_is_a_probability_and_mirrors(v1, v2):
    assert 0.0 <= p_lead(v1, v2) <= 1.0
    assert p_lead(v1, v2) + p_lead(v2, v1) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("v1", "v2"), [(0.4, 0.1), (2.5, 1.25), (7.3, 0.0), (30.2, 29.9)])
def test_weighted_form_matches_integration(v1, v2):
    assert p_lead(v1, v2) == pytest.approx(integrated(v1, v2), abs=1e-6)


@given(st.floats(1, 480), st.floats(1, 480))
def test_series_and_fraction_agree(a, b):
    a, b = max(a, b), min(a, b)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - (a + b) * math.log(2) - math.log(a)
    assert _beta_half(a, b) == pytest.approx(
        math.exp(log_front) * beta_fraction(0.5, a, b, _EPSILON, _MAX_TERMS), rel=1e-10, abs=1e-300
    )


def test_large_votes_stay_stable():
    assert p_lead(10**6, 10**6) == pytest.approx(0.5, abs=1e-9)
    assert p_lead(10**6, 10**6 - 5000) == pytest.approx(0.5 * (1 + math.erf(5000 / math.sqrt(4e6))), abs=1e-4)
    assert p_lead(10**7, 0) == 1.0


def test_mode_of_two_is_head_to_head():
    assert p_mode((5, 3)) == pytest.approx(p_lead(5, 3), abs=1e-6)


def test_mode_of_equals_is_one_in_k():
    for k in (3, 4, 5):
        assert p_mode((7.0,) * k) == pytest.approx(1 / k, abs=1e-6)


def test_more_rivals_make_it_less_sure():
    assert p_mode((6, 3, 3)) < p_mode((6, 3, 1)) < p_lead(6, 3)
