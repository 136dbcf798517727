"""Builds the parts a job names."""

from __future__ import annotations

from collections.abc import Sequence

from budgets.evidence import Evidence
from budgets.stopping import make_rule
from pipeline.strategy_kinds.arms import ArmSpec
from pipeline.strategy_spec import (
    AdaptiveSpec,
    AggregateSpec,
    BehaviouralVoteSpec,
    BestOfNSpec,
    CascadeSpec,
    DeepConfSpec,
    DiversifiedSpec,
    GreedySpec,
    SelfConsistencySpec,
    StrategySpec,
)
from strategies.adaptive import Adaptive, Candidate
from strategies.aggregate import Aggregate
from strategies.arms import Arm
from strategies.base import Strategy
from strategies.behavioural_vote import BehaviouralVote
from strategies.best_of_n import BestOfN
from strategies.cascade import Cascade, Stage
from strategies.deep_conf import DeepConf
from strategies.diversified import DEFAULT_ARMS, Diversified
from strategies.greedy import Greedy
from strategies.self_consistency import SelfConsistency


def make_strategy(spec: StrategySpec) -> Strategy:
    """The strategy a job file names, with its settings."""
    if isinstance(spec, AdaptiveSpec):
        return _adaptive(spec)
    if isinstance(spec, GreedySpec):
        return Greedy()
    if isinstance(spec, BestOfNSpec):
        return BestOfN(**spec.model_dump(exclude={"kind"}))
    if isinstance(spec, DeepConfSpec):
        return DeepConf(**spec.model_dump(exclude={"kind"}))
    if isinstance(spec, BehaviouralVoteSpec):
        return BehaviouralVote(_self_consistency(spec.vote), **spec.model_dump(exclude={"kind", "vote"}))
    if isinstance(spec, CascadeSpec):
        return _cascade(spec)
    if isinstance(spec, DiversifiedSpec):
        return Diversified(
            arms=make_arms(spec.arms) or DEFAULT_ARMS,
            probes=spec.probes,
            probe_tokens=spec.probe_tokens,
            similarity=spec.similarity,
            keep=spec.keep,
            weight=spec.weight,
            confidence=spec.confidence,
            alpha=spec.alpha,
        )
    if isinstance(spec, AggregateSpec):
        return Aggregate(
            vote=_self_consistency(spec.vote),
            method=spec.method,
            contested_below=spec.contested_below,
            candidates=spec.candidates,
            candidate_chars=spec.candidate_chars,
            selections=spec.selections,
            population=spec.population,
            subset=spec.subset,
            steps=spec.steps,
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
            model=spec.model,
            template=spec.template,
        )
    return _self_consistency(spec)


def make_arms(specs: Sequence[ArmSpec]) -> tuple[Arm, ...]:
    """The ways to ask that a section names."""
    return tuple(Arm(**spec.model_dump()) for spec in specs)


def _self_consistency(spec: SelfConsistencySpec) -> SelfConsistency:
    return SelfConsistency(
        min_samples=spec.min_samples,
        max_samples=spec.max_samples,
        confidence=spec.confidence,
        rule=make_rule(spec.rule) if spec.rule is not None else None,
        evidence=Evidence(spec.evidence, spec.evidence_strength, spec.evidence_fade),
        alpha=spec.alpha,
        prune=spec.prune,
        arms=make_arms(spec.all_arms()),
        verifier=spec.verifier,
        verify=spec.verify,
        pass_score=spec.pass_score,
    )


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


def _adaptive(spec: AdaptiveSpec) -> Adaptive:
    candidates = tuple(
        Candidate(Arm(**arm.model_dump(exclude={"strategy"})), make_strategy(arm.strategy)) for arm in spec.arms
    )
    return Adaptive(
        candidates,
        probe=spec.probe,
        confidence=spec.confidence,
        explore=spec.explore,
        evidence=Evidence(spec.evidence),
        alpha=spec.alpha,
        verifier=spec.verifier,
        pass_score=spec.pass_score,
    )
