"""Builds the parts a job names."""

from __future__ import annotations

from budgets.evidence import Evidence
from budgets.stopping import make_rule
from pipeline.strategy_kinds.arms import ArmSpec
from pipeline.strategy_spec import BestOfNSpec, CascadeSpec, GreedySpec, SelfConsistencySpec, StrategySpec
from strategies.arms import Arm
from strategies.base import Strategy
from strategies.best_of_n import BestOfN
from strategies.cascade import Cascade, Stage
from strategies.greedy import Greedy
from strategies.self_consistency import SelfConsistency


def make_strategy(spec: StrategySpec) -> Strategy:
    """The strategy a job file names, with its settings."""
    if isinstance(spec, GreedySpec):
        return Greedy()
    if isinstance(spec, BestOfNSpec):
        return BestOfN(**spec.model_dump(exclude={"kind"}))
    if isinstance(spec, CascadeSpec):
        return _cascade(spec)
    return _self_consistency(spec)


def _self_consistency(spec: SelfConsistencySpec) -> SelfConsistency:
    return SelfConsistency(
        min_samples=spec.min_samples,
        max_samples=spec.max_samples,
        confidence=spec.confidence,
        rule=make_rule(spec.rule) if spec.rule is not None else None,
        evidence=Evidence(spec.evidence, spec.evidence_strength, spec.evidence_fade),
        alpha=spec.alpha,
        prune=spec.prune,
        arms=tuple(map(make_arm, spec.all_arms())),
        verifier=spec.verifier,
        verify=spec.verify,
        pass_score=spec.pass_score,
    )


def _cascade(spec: CascadeSpec) -> Cascade:
    stages = (Stage(one.model, one.min_samples, one.max_samples, one.confidence) for one in spec.stages)
    return Cascade(
        stages=tuple(stages), keep_votes=spec.keep_votes, tolerance=spec.tolerance, audit=spec.audit, alpha=spec.alpha
    )


def make_arm(spec: ArmSpec) -> Arm:
    """An arm a job file names."""
    return Arm(spec.name, spec.template, spec.temperature, spec.top_p, spec.min_p, spec.model)
