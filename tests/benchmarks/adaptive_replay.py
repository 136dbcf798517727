"""Arms over recorded samples, some by SIMULATED models, through the live market in virtual time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from actors.virtual import VirtualJob, run_market
from actors.virtual_shard import Closed
from pipeline.errors import BudgetDenied
from pipeline.recording import Recording
from pipeline.records import Item, Sample, Verdict
from strategies.adaptive import Candidate
from strategies.base import PLAIN, Draw, Session, Solution, Strategy
from strategies.turn import Turn
from strategies.wrapped import Wrapped
from tests.benchmarks.best_of_n_replay import DATA, QUESTIONS_A_SLOT

SHARD = 30
"""Questions a shard: small, so that a small dataset comes in several waves, as a large one does."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A SIMULATED model. One of its samples costs ``size`` recorded ones; its answer is the first one's, but for

    ``knows``: a share of the questions, by a hash of the id, whose answer it gives in ``SURE`` of its samples;
    ``wrong``: a share on which it says the same wrong thing as often.
    """

    name: str
    size: int = 1
    knows: float = 0.0
    wrong: float = 0.0

    def sample(self, item: Item, index: int, parts: Sequence[Sample]) -> Sample:
        """Sample ``index`` of this model, paid for by ``parts``."""
        first, tokens = parts[0], sum(part.completion_tokens for part in parts)
        sample = replace(first, prompt_key=self.name, sample_index=index, completion_tokens=tokens, model=self.name)
        if _die(self.name, item.item_id, index) >= SURE:
            return sample
        if _die(self.name, item.item_id) < self.knows:
            passed = (Verdict("recorded", 1.0),) if first.verdicts else ()
            answer = item.reference if item.reference is not None else "a solution"
            return replace(sample, answer=answer, mean_logprob=None, verdicts=passed)
        if _die(self.name, item.item_id, "wrong") < self.wrong:
            failed = (Verdict("recorded", 0.0),) if first.verdicts else ()
            return replace(sample, answer="wrong", mean_logprob=None, verdicts=failed)
        return sample


SURE = 0.8


class _Simulated(Wrapped):
    """A session in which simulated models can be asked: each of their samples is bought as several recorded ones."""

    def __init__(self, session: Session, item: Item, models: dict[str, Model]) -> None:
        super().__init__(session)
        self._item, self._models = item, models
        self._next: dict[str, int] = {}

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        return super().expected_tokens() * (self._models[draw.model].size if draw.model else 1)

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        found: list[Sample] = []
        for draw in draws:
            size = self._models[draw.model].size if draw.model else 1
            try:
                parts = await self._session.sample(size, value=value)
                if len(parts) < size:
                    raise BudgetDenied(value)
            except BudgetDenied:
                if not found:
                    raise
                break
            index = self._next.get(draw.model, 0)
            self._next[draw.model] = index + 1
            found.append(self._models[draw.model].sample(self._item, index, parts) if draw.model else parts[0])
        return found


@dataclass(frozen=True)
class Simulating:
    """A strategy whose draws may name one of ``models``."""

    strategy: Strategy
    models: tuple[Model, ...]

    @property
    def minimum(self) -> int:
        return self.strategy.minimum

    @property
    def maximum(self) -> int:
        return self.strategy.maximum

    async def solve(self, item: Item, session: Session) -> Solution:
        return await self.strategy.solve(item, _Simulated(session, item, {model.name: model for model in self.models}))


@dataclass(frozen=True)
class Alone:
    """One arm for every question, from its first sample on."""

    candidate: Candidate

    @property
    def minimum(self) -> int:
        return self.candidate.strategy.minimum

    @property
    def maximum(self) -> int:
        return self.candidate.strategy.maximum

    async def solve(self, item: Item, session: Session) -> Solution:
        turn = Turn(session, self.candidate.name, {}, self.candidate.arm.draw(item), float("inf"))
        return await self.candidate.strategy.solve(item, turn)


@dataclass(frozen=True)
class Data:
    """A recording, and how an answer is told to be right: by the reference, or by the recorded pass."""

    name: str
    recording: Recording


def arithmetic() -> Data:
    columns = {"item_id": "question_id", "reference": "gold"}
    return Data("arithmetic", Recording.open(str(DATA / "smollm2_arithmetic_360x40.parquet"), columns))


def game24() -> Data:
    return Data("game of 24", Recording.open(str(DATA / "game24_gpt4_cot_100x100.parquet"), {"score": "passed"}))


def right(data: Data, strategy: Strategy, mean_tokens: float, repeats: int, seed: int) -> tuple[Floats, Floats, Counts]:
    """Repeats × questions: is the answer right, and tokens spent; and what the answers came from."""
    recording = data.recording
    found, spent = np.zeros((repeats, recording.questions)), np.zeros((repeats, recording.questions))
    counts: Counts = {}
    turn = [0]

    def closed(one: Closed) -> None:
        place = (turn[0], one.columns.first + one.number)
        reference, best = one.columns.references[one.number], one.solution.best
        if reference is not None:
            found[place] = one.solution.answer == reference
        else:
            found[place] = bool(best is not None and best.verdicts and best.verdicts[0].score == 1.0)
        spent[place] = one.session.tokens
        name = str(one.solution.facts.get("answered by", ""))
        counts[name] = counts.get(name, 0) + 1

    job = VirtualJob(
        recording=recording,
        spans=recording.spans(-(-recording.questions // SHARD)),
        strategy=cache(lambda pool: strategy),
        cost=lambda tokens: max(1, tokens),
        worst=max(1, recording.largest or 1),
        seed=seed,
        repeat=0,
        closed=closed,
        slots=max(1, recording.questions // QUESTIONS_A_SLOT),
        open_questions=2 * SHARD,
    )
    for repeat in range(repeats):
        turn[0] = repeat
        run_market(replace(job, repeat=repeat), int(mean_tokens * recording.questions))
    return found, spent, counts


Counts = dict[str, int]
"""By arm: answers that are its, over all generations and repeats."""


def _die(*parts: object) -> float:
    """A number in [0, 1) that depends on ``parts`` alone."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2.0**64
