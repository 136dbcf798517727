"""Best-of-N with adaptive stopping: score every sample, choose among them, stop when another is not worth it.

The score is a verifier's or the model's own confidence; the choice is a rule of ``budgets.selection``, each with its
paper. Three ways to stop:

- *fixed*: at ``max_samples`` (best-of-N; 16 is what Nakano et al. 2021, "WebGPT", take for their 13B model).
- *pandora*: each sample is a box of cost ``cost_per_sample`` (in units of score) and the question stops once its best
  score is at least the reservation value of the next box (Weitzman 1979; Kalayci et al. 2025, arXiv:2510.01394).
- *pass*: at the first sample whose score is ``pass_score`` or more; it is the answer, whatever the selection.

*pandora* stops at ``pass_score`` too: a score of 1 cannot be beaten.

Where we differ: Kalayci et al. stop at an upper confidence bound of the reservation value, on rewards of any scale made
comparable by a Bradley-Terry transformation. Our scores are in [0, 1] already, and a beta distribution with the
posterior mean and spread (``budgets.pandora``, ``budgets.bounded``) takes the place of the bound. Further samples are
bids on the run's market, so a question also stops when others offer more: the bid is what the next box is expected to
gain, or, under *pass*, the probability that the next sample passes; per token in either case.

What a sample without a score is worth: one that was cut or has no answer cannot be the answer and is not checked; one
whose check failed may still be it where nothing has a score, by a plain vote. None of them teaches the posterior
anything but this: a box may be empty, so the gain is multiplied by the share of samples that show a score.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

from budgets.pandora import PRIOR_MEAN, PRIOR_SAMPLES, PRIOR_SPREAD
from budgets.selection import PESSIMISM, SOFTNESS
from budgets.value import success_value
from pipeline.errors import BudgetDenied, SpecError
from pipeline.records import Item, Sample, StopReason
from strategies.base import Session, Solution
from strategies.scored import CONFIDENCE, Scoreboard, Selection, confidence_of

Stop = Literal["fixed", "pandora", "pass"]
DEFAULT_COST = 0.02
"""No paper can know it: two points of score a sample. With a prior that is no better than the default, 0.01 and less
were measured to draw more than a fixed number does for the same reward (``tests.benchmarks.best_of_n``)."""


@dataclass(frozen=True)
class BestOfN:
    """Best of at most ``max_samples`` by ``score``, the name of a verifier or *confidence*.

    ``cost_per_sample`` at 0 leaves the stop to the market and the cap. A question's stakes multiply what its score is
    worth, so they divide the cost. ``prior_mean``, ``prior_spread`` and ``prior_samples`` are what is known of scores
    before a question's first, worth so many scores; ``prior_passes`` and ``prior_failures`` the Beta prior of the pass
    rate. ``softness`` and ``pessimism``: see the rules of those names.
    """

    score: str = CONFIDENCE
    selection: Selection = "argmax"
    stop: Stop = "pandora"
    min_samples: int = 1
    max_samples: int = 16
    cost_per_sample: float = DEFAULT_COST
    pass_score: float = 1.0
    softness: float = SOFTNESS
    pessimism: float = PESSIMISM
    prior_mean: float = PRIOR_MEAN
    prior_spread: float = PRIOR_SPREAD
    prior_samples: float = PRIOR_SAMPLES
    prior_passes: float = 1.0
    prior_failures: float = 1.0

    def __post_init__(self) -> None:
        for name, kinds in (("selection", get_args(Selection)), ("stop", get_args(Stop))):
            if getattr(self, name) not in kinds:
                raise SpecError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(kinds)}")
        if not 0.0 <= self.cost_per_sample < math.inf:
            raise SpecError(f"cost_per_sample is {self.cost_per_sample!r}: it must be a finite number >= 0")

    @property
    def minimum(self) -> int:
        return self.min_samples

    @property
    def maximum(self) -> int:
        return self.max_samples

    def unstopped(self) -> BestOfN:
        """The same choice among ``max_samples`` samples, whatever they score on the way."""
        return dataclasses.replace(self, stop="fixed")

    async def solve(self, item: Item, session: Session) -> Solution:
        board = Scoreboard(self.prior_mean, self.prior_spread, self.prior_samples)
        while board.n < self.max_samples:
            if self._content(board, item):
                return self._solution(board, session, StopReason.SETTLED)
            value = self._bid(board, item, session)
            try:
                drawn = await session.sample(max(1, self.min_samples - board.n), value=value)
                await self._look_at(drawn, board, session, value)
            except BudgetDenied:
                return self._solution(board, session, StopReason.EXHAUSTED, self._bid(board, item, session))
            passed = board.first_at(self.pass_score) if self.stop != "fixed" else None
            if passed is not None:
                # The model's own confidence verifies nothing, however high it is.
                verified = self.score != CONFIDENCE
                return board.passed(passed, StopReason.VERIFIED if verified else StopReason.SETTLED)
        return self._solution(board, session, StopReason.CAPPED)

    async def _look_at(self, drawn: list[Sample], board: Scoreboard, session: Session, value: float) -> None:
        """Put samples on the board, then score those that can be the answer. Raises BudgetDenied."""
        places = [board.add(sample) for sample in drawn]
        todo = [place for place in places if board.is_candidate(place)]
        if self.score == CONFIDENCE:
            for place in todo:
                board.mark(place, confidence_of(board.samples[place]))
            return
        try:
            await self._check(todo, board, session, value)
        except BudgetDenied:
            if len(todo) < 2:
                raise
            # The market may pay for some of them.
            for place in todo:
                await self._check([place], board, session, value)

    async def _check(self, places: list[int], board: Scoreboard, session: Session, value: float) -> None:
        if places:
            verdicts = await session.verify([board.samples[place] for place in places], self.score, value=value)
            for place, verdict in zip(places, verdicts, strict=True):
                board.mark(place, verdict.score, verdict.error)

    def _content(self, board: Scoreboard, item: Item) -> bool:
        """Is the best score found at least the reservation value of the next box?

        E[(X − z)+] falls in z and is the cost at the reservation value, so that is where the gain over the best score
        is no more than the cost.
        """
        if self.stop != "pandora" or board.n < self.min_samples:
            return False
        return board.gain * item.stakes <= self.cost_per_sample

    def _bid(self, board: Scoreboard, item: Item, session: Session) -> float:
        if board.n < self.min_samples:
            return math.inf
        tokens = session.expected_tokens(check=None if self.score == CONFIDENCE else self.score)
        if self.stop == "pass":
            return success_value(board.n, tokens, item.stakes, self.prior_passes, self.prior_failures)
        return item.stakes * board.gain / tokens

    def _solution(self, board: Scoreboard, session: Session, reason: StopReason, next_value: float = 0.0) -> Solution:
        return board.solution(self.selection, reason, session.rng.random(), next_value, self.softness, self.pessimism)
