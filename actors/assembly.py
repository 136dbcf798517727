"""Builds the parts a job names."""

from __future__ import annotations

from budgets.evidence import Evidence
from budgets.stopping import make_rule
from pipeline.strategy_spec import BestOfNSpec, GreedySpec, StrategySpec
from strategies.base import Strategy
from strategies.best_of_n import BestOfN
from strategies.greedy import Greedy
from strategies.self_consistency import SelfConsistency


def make_strategy(spec: StrategySpec) -> Strategy:
    """The strategy a job file names, with its settings."""
    if isinstance(spec, GreedySpec):
        return Greedy()
    if isinstance(spec, BestOfNSpec):
        return BestOfN(**spec.model_dump(exclude={"kind"}))
    return SelfConsistency(
        min_samples=spec.min_samples,
        max_samples=spec.max_samples,
        confidence=spec.confidence,
        rule=make_rule(spec.rule) if spec.rule is not None else None,
        evidence=Evidence(spec.evidence, spec.evidence_strength, spec.evidence_fade),
        alpha=spec.alpha,
        prune=spec.prune,
    )
