"""At which confidence may a cheaper model be believed? Learnt from questions that the next model was asked too.

A stage of a cascade ends with a posterior P that its leader is the mode. Its questions fall into buckets by P, and two
things are counted in each: how many questions there were (*seen*), and of those that went on, how often the next model
agreed. The threshold is the lowest edge t with

    Σ over buckets from t on of (share of questions seen) × (expected disagreement) <= tolerance:

every question below it costs an answer of the next model, so the lowest threshold is the cheapest, and what is believed
differs from what the next model would have said in at most ``tolerance`` of all questions, as far as is known. Chen et
al. 2023 (FrugalGPT, arXiv:2305.05176, §3) learn thresholds offline from labelled questions under a budget; here the
next model stands for the label, and the run's own questions are learnt from while it goes.

It starts at the stage's own confidence and moves on evidence alone: at or above it, disagreement is believed to be what
the posterior says, 1 − P, until lessons say otherwise; below it, no bucket is believed before ``LEAST_LESSONS``. Within
a bucket the questions that taught must be like the others: all of them, or a random few. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_right

from budgets.experience import Experience, Lesson
from pipeline.errors import SpecError

EDGES = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Where buckets begin; the stage's own confidence is one more. Finer ones would share out the lessons too thinly."""
PRIOR_STRENGTH = 20.0
"""Believed beforehand as if from so many questions: at a tolerance of .05 one surprise alone moves little."""
PRIOR_DOUBT = 0.5
"""Expected disagreement below the stage's own confidence before anything is known: as likely as not."""
LEAST_LESSONS = 20
_ROUNDING = 1e-9
NEVER = math.inf
"""The threshold where no answer of the stage may be believed."""


def edges_of(start: float) -> tuple[float, ...]:
    """Where buckets begin, lowest first; ``start`` is the stage's own confidence."""
    return tuple(sorted({*EDGES, start}))


def bucket_of(confidence: float, start: float) -> str:
    """The bucket of a confidence in [0, 1], named by where it begins. Raises SpecError outside."""
    if not 0.0 <= confidence <= 1.0:
        raise SpecError(f"confidence is {confidence!r}: it must be a probability in [0, 1]")
    edges = edges_of(start)
    return _name(edges[bisect_right(edges, confidence) - 1])


def seen(subject: str) -> str:
    """What lessons that only count a bucket's questions are filed under."""
    return f"{subject}/seen"


def disagreement(lesson: Lesson, edge: float, start: float) -> float:
    """Expected share of a bucket's questions that the next model would answer otherwise."""
    prior = 1.0 - edge if edge >= start else PRIOR_DOUBT
    return (PRIOR_STRENGTH * prior + lesson.count - lesson.reward) / (PRIOR_STRENGTH + lesson.count)


def choose_threshold(known: Experience, subject: str, start: float, tolerance: float) -> float:
    """The lowest confidence at which the stage is believed, an edge of a bucket; ``NEVER``: at none.

    ``known``: lessons under ``subject`` (reward 1: the next model agreed) and under ``seen(subject)``, by bucket.

    Raises:
        SpecError: ``start`` or ``tolerance`` is no probability.
    """
    for name, value in (("start", start), ("tolerance", tolerance)):
        if not 0.0 <= value <= 1.0:
            raise SpecError(f"{name} is {value!r}: it must be a probability in [0, 1]")
    edges = edges_of(start)
    counts = {edge: known.get((seen(subject), _name(edge)), Lesson()).count for edge in edges}
    total = sum(counts.values())
    if not total:
        return start
    threshold, expected = NEVER, 0.0
    for edge in reversed(edges):
        lesson = known.get((subject, _name(edge)), Lesson())
        expected += counts[edge] / total * disagreement(lesson, edge, start)
        if expected > tolerance + _ROUNDING or (edge < start and lesson.count < LEAST_LESSONS):
            break
        threshold = edge
    return threshold


def _name(edge: float) -> str:
    return f"{edge:g}"
