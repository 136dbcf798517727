"""The ``greedy`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pipeline.strategy_kinds.base import StrategySection


class GreedySpec(StrategySection):
    """One sample at temperature 0."""

    kind: Literal["greedy"] = "greedy"

    @property
    def settles(self) -> tuple[str, ...]:
        return ("temperature",)
