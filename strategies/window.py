"""The session of a question as a strategy within a strategy sees it: bids are capped, and what came of them is kept.

Lets one strategy run another's whole course as a part of its own. Draws through the session it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import BudgetDenied
from pipeline.records import Sample, Verdict
from strategies.base import Draw, Session
from strategies.wrapped import Recorder


class Window(Recorder):
    """A session in which no bid exceeds ``opening``. ``denied``: the bid for a sample that the market refused last."""

    def __init__(self, session: Session, opening: float) -> None:
        super().__init__(session)
        self._opening = opening
        self.denied: float | None = None

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        bid = min(value, self._opening)
        try:
            return await super().sample_each(draws, value=bid)
        except BudgetDenied:
            self.denied = bid
            raise

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        return await super().verify(samples, verifier, value=min(value, self._opening), given=given)
