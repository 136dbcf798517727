import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.confidence import GroupConfidence, min_group_confidence, token_confidence

GROUPS = st.integers(1, 20)
TRACES = st.lists(st.floats(0, 50), min_size=1, max_size=60)
SPOILT = [math.nan, math.inf, -math.inf]


def by_hand(confidences, group):
    width = min(group, len(confidences))
    return min(sum(confidences[i : i + width]) / width for i in range(len(confidences) - width + 1))


def test_token_confidence_is_the_negative_mean():
    assert token_confidence([-1.0, -3.0]) == 2.0


def test_an_empty_trace_has_none():
    assert min_group_confidence([]) is None
    assert not GroupConfidence(1).below(math.inf)


@given(TRACES, GROUPS)
def test_the_lowest_window_by_hand(confidences, group):
    assert min_group_confidence(confidences, group) == pytest.approx(by_hand(confidences, group), abs=1e-9)


@given(TRACES, GROUPS, st.floats(0, 50))
def test_on_the_way_it_is_what_the_prefix_is(confidences, group, bar):
    trace = GroupConfidence(group)
    for n, confidence in enumerate(confidences, start=1):
        trace.add(confidence)
        prefix = confidences[:n]
        assert trace.lowest == min_group_confidence(prefix, group)
        assert trace.lowest == pytest.approx(by_hand(prefix, group), abs=1e-9)
        assert trace.below(bar) == (n >= group and trace.lowest < bar)


@given(TRACES, GROUPS, st.floats(0, 50))
def test_once_below_it_stays_below(confidences, group, bar):
    trace = GroupConfidence(group)
    seen = []
    for confidence in confidences:
        trace.add(confidence)
        seen.append(trace.below(bar))
    assert seen == sorted(seen)


@given(TRACES, TRACES, GROUPS, st.sampled_from(SPOILT))
def test_a_token_that_is_not_finite_spoils_the_trace_for_good(before, after, group, spoilt):
    trace = GroupConfidence(group)
    for confidence in [*before, spoilt, *after]:
        trace.add(confidence)
    assert math.isnan(trace.lowest)
    assert not trace.below(math.inf)
