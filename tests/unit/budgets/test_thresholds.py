"""Learnt thresholds: by hand, cautious at first, and never past what is tolerated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.experience import Lesson
from budgets.thresholds import (
    LEAST_LESSONS,
    NEVER,
    PRIOR_DOUBT,
    PRIOR_STRENGTH,
    bucket_of,
    choose_threshold,
    disagreement,
    edges_of,
    seen,
)
from pipeline.errors import SpecError

NAME = "cascade/1"


def known(questions: dict[str, int], lessons: dict[str, tuple[int, int]]) -> dict:
    """Bucket → questions seen; bucket → (lessons, agreed)."""
    found = {(seen(NAME), bucket): Lesson(n, n, n) for bucket, n in questions.items()}
    return found | {(NAME, bucket): Lesson(n, agreed, agreed) for bucket, (n, agreed) in lessons.items()}


@pytest.mark.parametrize(
    ("confidence", "start", "bucket"),
    [(0.59, 0.95, "0"), (0.6, 0.95, "0.6"), (0.97, 0.95, "0.95"), (0.97, 0.96, "0.96"), (1, 0.95, "0.99")],
)
def test_buckets_begin_at_their_names(confidence, start, bucket):
    assert bucket_of(confidence, start) == bucket


def test_before_any_lesson_the_stage_has_its_own_confidence():
    assert choose_threshold({}, NAME, 0.95, 0.05) == 0.95
    assert choose_threshold(known({"0.95": 100, "0.9": 40}, {}), NAME, 0.95, 0.05) == 0.95


def test_agreement_lowers_the_threshold_and_disagreement_raises_it():
    # At .95: (20 × .05 + 0) / (20 + 40) = 1/60; .6 of all: .01. At .9: (20 × .5 + 0) / 120 = 1/12; .4 of all: .0333.
    lessons = {"0.95": (40, 40), "0.9": (100, 100)}
    assert choose_threshold(known({"0.95": 60, "0.9": 40}, lessons), NAME, 0.95, 0.05) == 0.9
    assert choose_threshold(known({"0.95": 60, "0.9": 40}, lessons), NAME, 0.95, 0.04) == 0.95
    # At .95: (1 + 15) / 40 = .4 of .6; nobody was seen above it, so nothing speaks against the edge above.
    assert choose_threshold(known({"0.95": 60, "0.9": 40}, {"0.95": (20, 5)}), NAME, 0.95, 0.05) == 0.99
    # At .99: (20 × .01 + 15) / 40 = .38.
    assert choose_threshold(known({"0.99": 60, "0.9": 40}, {"0.99": (20, 5)}), NAME, 0.95, 0.05) == NEVER


def test_a_tolerance_below_what_the_posterior_says_believes_less_from_the_start():
    assert choose_threshold(known({"0.99": 50, "0.95": 50}, {}), NAME, 0.95, 0.02) == 0.99


def test_below_its_own_confidence_a_few_lessons_are_not_enough():
    # One question in a thousand lies there: whatever they do is within the tolerance, yet nothing is known of them.
    questions = {"0.95": 999, "0.9": 1}
    few, enough = ({"0.9": (n, n)} for n in (LEAST_LESSONS - 1, LEAST_LESSONS))
    assert choose_threshold(known(questions, few), NAME, 0.95, 0.06) == 0.95
    assert choose_threshold(known(questions, enough), NAME, 0.95, 0.06) == 0.9


buckets = st.dictionaries(st.sampled_from([f"{edge:g}" for edge in edges_of(0.95)]), st.integers(0, 500))
taught = st.dictionaries(
    st.sampled_from([f"{edge:g}" for edge in edges_of(0.95)]),
    st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
)


@given(buckets, taught, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_what_is_believed_is_within_the_tolerance_and_more_of_it_believes_more(questions, lessons, one, other):
    experience, total = known(questions, lessons), sum(questions.values())
    strict, lax = (choose_threshold(experience, NAME, 0.95, tolerance) for tolerance in sorted((one, other)))
    assert strict >= lax or total == 0
    if total:
        wrong = sum(
            questions.get(f"{edge:g}", 0)
            / total
            * disagreement(experience.get((NAME, f"{edge:g}"), Lesson()), edge, 0.95)
            for edge in edges_of(0.95)
            if edge >= lax
        )
        assert wrong <= max(one, other) + 1e-6


def test_a_bucket_nobody_taught_is_as_doubtful_as_its_posterior_or_as_not():
    assert disagreement(Lesson(), 0.95, 0.95) == pytest.approx(0.05)
    assert disagreement(Lesson(), 0.6, 0.95) == PRIOR_DOUBT
    strength = int(PRIOR_STRENGTH)
    assert disagreement(Lesson(strength, strength, strength), 0.6, 0.95) == PRIOR_DOUBT / 2


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(SpecError):
        choose_threshold({}, NAME, 0.95, value)
    with pytest.raises(SpecError):
        choose_threshold({}, NAME, value, 0.05)
    with pytest.raises(SpecError):
        bucket_of(value, 0.95)
