"""When a cheaper model is believed: by hand, and what more agreement can do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.experience import Lesson
from budgets.thresholds import EDGES, accepts, bucket_of, disagreement
from pipeline.errors import SpecError


@pytest.mark.parametrize(
    ("confidence", "bucket"), [(0.0, "0"), (0.59, "0"), (0.6, "0.6"), (0.949, "0.9"), (0.95, "0.95"), (1.0, "0.98")]
)
def test_buckets_begin_at_their_edges(confidence, bucket):
    assert bucket_of(confidence) == bucket


def test_it_begins_cautiously_and_learns():
    # (1 + against) / (2 + n): half before anything, a tenth after eight in agreement.
    assert disagreement(Lesson()) == 0.5
    assert math.isclose(disagreement(Lesson(8, 8.0)), 0.1)
    assert not accepts({}, "c", "0.9", 0.1)
    assert not accepts({("c", "0.9"): Lesson(7, 7.0)}, "c", "0.9", 0.1)
    assert accepts({("c", "0.9"): Lesson(8, 8.0)}, "c", "0.9", 0.1)
    assert not accepts({("other", "0.9"): Lesson(80, 80.0)}, "c", "0.9", 0.1)


def test_a_surer_bucket_profits_from_those_below_and_not_the_other_way():
    known = {("c", "0.8"): Lesson(8, 8.0)}
    assert accepts(known, "c", "0.95", 0.1)
    assert not accepts(known, "c", "0.7", 0.1)


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0.01, 0.5), st.sampled_from(["0", *(f"{e:g}" for e in EDGES)]))
def test_one_more_in_agreement_never_takes_acceptance_back(agreed, against, tolerance, bucket):
    less, more = (Lesson(n + against, float(n)) for n in (agreed, agreed + 1))
    before = accepts({("c", bucket): less}, "c", bucket, tolerance)
    assert accepts({("c", bucket): more}, "c", bucket, tolerance) >= before


def test_a_tolerance_is_a_share():
    with pytest.raises(SpecError, match="tolerance"):
        accepts({}, "c", "0.9", 1.5)
