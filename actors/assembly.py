"""Builds the parts a job names."""

from __future__ import annotations

from pipeline.spec import GreedySpec, SelfConsistencySpec
from strategies.base import Strategy
from strategies.greedy import Greedy
from strategies.self_consistency import SelfConsistency


def make_strategy(spec: GreedySpec | SelfConsistencySpec) -> Strategy:
    """The strategy a job file names, with its settings."""
    if isinstance(spec, GreedySpec):
        return Greedy()
    return SelfConsistency(spec.min_samples, spec.max_samples, spec.confidence)
