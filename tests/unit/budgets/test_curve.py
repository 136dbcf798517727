"""Demand curves: bucket edges are exact, sums come and go, prices split demand."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.curve import BUCKETS_PER_OCTAVE, DemandCurve, bucket_of, edge_of, just_above
from budgets.value import voting_value
from budgets.votes import p_lead
from pipeline.errors import SpecError

BIDS = st.one_of(st.just(0.0), st.just(math.inf), st.floats(0, allow_nan=False), st.floats(1e-9, 1.0))


def curve_of(*pairs: tuple[float, int]) -> DemandCurve:
    return DemandCurve.from_pairs(pairs)


@given(BIDS)
def test_edges_are_exact(bid):
    bucket = bucket_of(bid)
    assert bucket_of(edge_of(bucket)) == bucket
    assert edge_of(bucket) <= bid
    assert bucket_of(just_above(bid)) > bucket or bid == math.inf


@given(st.floats(1e-12, 1e12))
def test_buckets_are_geometric(bid):
    assert 1.0 <= bid / edge_of(bucket_of(bid)) <= 2 ** (1 / BUCKETS_PER_OCTAVE) * (1 + 1e-12)


@given(BIDS, BIDS)
def test_an_edge_splits_bids_like_a_comparison(bid, other):
    price = edge_of(bucket_of(other))
    assert (bid >= price) == (bucket_of(bid) >= bucket_of(price))


@pytest.mark.parametrize("bid", [math.nan, -1.0, -math.inf])
def test_malformed_bid(bid):
    with pytest.raises(SpecError, match="bid is"):
        DemandCurve().add(bid, 1)


@given(st.lists(st.tuples(BIDS, st.integers(1, 10**6))), st.lists(st.tuples(BIDS, st.integers(1, 10**6))))
def test_adding_and_taking_away_leaves_nothing(first, second):
    curve = curve_of(*first)
    before = curve.to_pairs()
    other = curve_of(*second)
    curve.merge(other)
    assert curve.total() == sum(tokens for _, tokens in [*first, *second])
    curve.add_pairs(other.to_pairs(), -1)
    assert curve.to_pairs() == before
    assert DemandCurve.from_pairs(before).to_pairs() == before


@given(st.lists(st.tuples(BIDS, st.integers(1, 1000))), st.integers(0, 5000))
def test_prices(pairs, tokens):
    curve = curve_of(*pairs)
    price, marginal = curve.price_for(tokens), curve.marginal(tokens)
    if price < math.inf:
        assert curve.at_or_above(price) <= tokens
    if curve.total() <= tokens:
        assert price == marginal == 0.0
    else:
        assert curve.at_or_above(marginal) > tokens
        assert just_above(marginal) == price


def test_minimums_and_worthless_bids_have_their_own_buckets():
    curve = curve_of((math.inf, 5), (0.0, 7), (0.25, 3))
    assert curve.to_pairs() == ((math.inf, 5), (0.25, 3), (0.0, 7))
    assert [curve.at_or_above(p) for p in (math.inf, 0.25, 0.0)] == [5, 8, 15]


def test_many_bids_stay_a_short_curve():
    """Prints the rate of bids decided; asserts no time, since machines differ."""
    curve = DemandCurve()
    start = time.perf_counter()
    for i in range(20_000):
        v1, v2 = 1 + i % 20, i % 7
        curve.add(voting_value(p_lead(v1, v2), v1 + v2, 50 + i % 50), 512)
    rate = 20_000 / (time.perf_counter() - start)
    print(f"{rate:,.0f} bids a second")
    assert curve.total() == 20_000 * 512
    assert len(curve.to_pairs()) < 300
