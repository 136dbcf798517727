"""The ``strategy`` part of a job file: one section class a kind, told apart by ``kind``.

Pydantic only: a job is validated without importing what it configures. Sections are in ``pipeline.strategy_kinds``;
what a kind *does* is in ``strategies``, under the same name; ``actors.assembly`` makes one from the other.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.strategy_kinds.aggregate import AggregateSpec as AggregateSpec
from pipeline.strategy_kinds.behavioural_vote import BehaviouralVoteSpec as BehaviouralVoteSpec
from pipeline.strategy_kinds.best_of_n import BestOfNSpec as BestOfNSpec
from pipeline.strategy_kinds.cascade import CascadeSpec as CascadeSpec
from pipeline.strategy_kinds.deep_conf import DeepConfSpec as DeepConfSpec
from pipeline.strategy_kinds.diversified import DiversifiedSpec as DiversifiedSpec
from pipeline.strategy_kinds.greedy import GreedySpec as GreedySpec
from pipeline.strategy_kinds.self_consistency import SelfConsistencySpec as SelfConsistencySpec

StrategySpec = Annotated[
    GreedySpec
    | SelfConsistencySpec
    | BestOfNSpec
    | CascadeSpec
    | DiversifiedSpec
    | AggregateSpec
    | DeepConfSpec
    | BehaviouralVoteSpec,
    Field(discriminator="kind"),
]
