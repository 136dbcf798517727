"""The ``strategy`` part of a job file: one section class a kind, told apart by ``kind``.

Pydantic only: a job is validated without importing what it configures. Sections are in ``pipeline.strategy_kinds``;
what a kind *does* is in ``strategies``, under the same name; ``actors.assembly`` makes one from the other.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.strategy_kinds.adaptive import AdaptiveSpec as AdaptiveSpec
from pipeline.strategy_kinds.single import AggregateSpec as AggregateSpec
from pipeline.strategy_kinds.single import BehaviouralVoteSpec as BehaviouralVoteSpec
from pipeline.strategy_kinds.single import BestOfNSpec as BestOfNSpec
from pipeline.strategy_kinds.single import CascadeSpec as CascadeSpec
from pipeline.strategy_kinds.single import DeepConfSpec as DeepConfSpec
from pipeline.strategy_kinds.single import DiversifiedSpec as DiversifiedSpec
from pipeline.strategy_kinds.single import GreedySpec as GreedySpec
from pipeline.strategy_kinds.single import SelfConsistencySpec as SelfConsistencySpec
from pipeline.strategy_kinds.single import SingleSpec

StrategySpec = Annotated[SingleSpec | AdaptiveSpec, Field(discriminator="kind")]
