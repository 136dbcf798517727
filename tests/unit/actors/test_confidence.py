import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.confidence import min_group_confidence, token_confidence


def test_token_confidence_is_the_negative_mean():
    assert token_confidence([-1.0, -3.0]) == 2.0


def test_an_empty_trace_has_none():
    assert min_group_confidence([]) is None


@given(st.lists(st.floats(0, 50), min_size=1, max_size=60), st.integers(1, 20))
def test_the_lowest_window_by_hand(confidences, group):
    width = min(group, len(confidences))
    means = [sum(confidences[i : i + width]) / width for i in range(len(confidences) - width + 1)]
    assert min_group_confidence(confidences, group) == pytest.approx(min(means), abs=1e-9)
