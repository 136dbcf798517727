"""Builds the parts a job names."""

from __future__ import annotations

from budgets.evidence import Evidence
from budgets.stopping import make_rule
from pipeline.strategy_kinds.arms import ArmSpec
from pipeline.strategy_spec import CascadeSpec, GreedySpec, SelfConsistencySpec
from strategies.arms import Arm
from strategies.base import Strategy
from strategies.cascade import Cascade, Stage
from strategies.greedy import Greedy
from strategies.self_consistency import SelfConsistency


def make_strategy(spec: GreedySpec | SelfConsistencySpec | CascadeSpec) -> Strategy:
    """The strategy a job file names, with its settings."""
    if isinstance(spec, GreedySpec):
        return Greedy()
    if isinstance(spec, CascadeSpec):
        return _cascade(spec)
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


def make_arm(spec: ArmSpec) -> Arm:
    """An arm a job file names."""
    return Arm(spec.name, spec.template, spec.temperature, spec.top_p, spec.min_p, spec.model)


def _cascade(spec: CascadeSpec) -> Cascade:
    stages = tuple(
        Stage(
            model=stage.model,
            min_samples=stage.min_samples,
            max_samples=stage.max_samples,
            confidence=stage.confidence,
            rule=make_rule(stage.rule) if stage.rule is not None else None,
            temperature=stage.temperature,
            templates=tuple(stage.templates),
            carry=stage.carry,
        )
        for stage in spec.stages
    )
    return Cascade(
        stages, Evidence(spec.evidence), spec.alpha, spec.learn_threshold, spec.audit_fraction, spec.tolerance
    )
