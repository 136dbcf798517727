"""The kinds of strategy that stand by themselves, and may be an arm of one that chooses among them."""

from __future__ import annotations

from pipeline.strategy_kinds.aggregate import AggregateSpec as AggregateSpec
from pipeline.strategy_kinds.behavioural_vote import BehaviouralVoteSpec as BehaviouralVoteSpec
from pipeline.strategy_kinds.best_of_n import BestOfNSpec as BestOfNSpec
from pipeline.strategy_kinds.cascade import CascadeSpec as CascadeSpec
from pipeline.strategy_kinds.deep_conf import DeepConfSpec as DeepConfSpec
from pipeline.strategy_kinds.diversified import DiversifiedSpec as DiversifiedSpec
from pipeline.strategy_kinds.greedy import GreedySpec as GreedySpec
from pipeline.strategy_kinds.self_consistency import SelfConsistencySpec as SelfConsistencySpec

SingleSpec = (
    GreedySpec
    | SelfConsistencySpec
    | BestOfNSpec
    | CascadeSpec
    | DiversifiedSpec
    | AggregateSpec
    | DeepConfSpec
    | BehaviouralVoteSpec
)
