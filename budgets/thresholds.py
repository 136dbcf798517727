"""When is a cheaper model's word good enough? Learnt from questions that both models answered.

For each bucket of the cheap model's confidence, lessons count how often the dearer one agreed (reward 1) or not (0). A
bucket is accepted once the expected share of disagreement is within a tolerance; before that, every question of it goes
on and teaches. Pure.
"""

from __future__ import annotations

import bisect

from budgets.experience import Experience, Lesson
from pipeline.errors import SpecError

EDGES = (0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Confidences (posterior that the leader is the mode) at which a new bucket begins; the first begins at 0."""
PRIOR_DISAGREEMENT = 0.5
"""Before anything is known a cheap answer is as likely to be contradicted as not."""
PRIOR_COUNT = 2.0
"""That belief is worth so many questions: with a tolerance of .1 it takes eight in agreement to accept a bucket."""


def bucket_of(confidence: float) -> str:
    """The bucket of a confidence in [0, 1], named by where it begins."""
    return f"{(0.0, *EDGES)[bisect.bisect_right(EDGES, confidence)]:g}"


def disagreement(lesson: Lesson) -> float:
    """Posterior mean of the share of questions on which the dearer model says something else."""
    against = lesson.count - lesson.reward
    return (PRIOR_COUNT * PRIOR_DISAGREEMENT + against) / (PRIOR_COUNT + lesson.count)


def accepts(known: Experience, name: str, bucket: str, tolerance: float) -> bool:
    """Is the cheap model's answer good enough in this bucket?

    A bucket has its own lessons and those of every bucket less sure than it: an answer given with more confidence is
    contradicted no more often.

    Raises:
        SpecError: ``tolerance`` outside [0, 1].
    """
    if not 0.0 <= tolerance <= 1.0:
        raise SpecError(f"tolerance is {tolerance!r}: it must be a share in [0, 1]")
    own = known.get((name, bucket), Lesson())
    below = [lesson for (subject, other), lesson in known.items() if subject == name and float(other) < float(bucket)]
    return min(disagreement(own), disagreement(sum(below, own))) <= tolerance
