"""Arms over recorded samples, some by SIMULATED models, through the live market in virtual time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
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

SHARDS = 12
"""Of one copy of the questions. Two are open at a time: a small dataset comes in waves, as a large one does."""

SURE = 0.8

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A SIMULATED model. One of its samples costs ``size`` recorded ones and gives the answer of the first, but on two
    shares of the questions, by a hash of the id: those it ``knows``, where ``SURE`` of its samples are right, and those
    on which it says the same ``wrong`` thing as often."""

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

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        """What a sample carries: the recorded score, or the simulated model's."""
        return [
            replace(one.verdicts[0], verifier=verifier) if one.verdicts else Verdict(verifier, error="nothing recorded")
            for one in samples
        ]


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
    """A recording, its questions ``copies`` times over, one copy after the other. An answer is right by the reference,
    or by the recorded pass."""

    recording: Recording
    copies: int


def arithmetic(copies: int, folder: Path) -> Data:
    """The arithmetic questions; copies of them are written into ``folder``."""
    columns = {"item_id": "question_id", "reference": "gold"}
    return _data("smollm2_arithmetic_360x40.parquet", columns, copies, folder)


def game24(copies: int, folder: Path) -> Data:
    """The Games of 24, likewise."""
    return _data("game24_gpt4_cot_100x100.parquet", {"score": "passed"}, copies, folder)


def _data(file: str, columns: dict[str, str], copies: int, folder: Path) -> Data:
    if copies == 1:
        return Data(Recording.open(str(DATA / file), columns), copies)
    name = columns.get("item_id", "item_id")
    table = pq.read_table(DATA / file)
    place = table.column_names.index(name)
    parts = [
        table.set_column(place, name, pc.binary_join_element_wise(table[name], f"copy {copy}", " "))
        for copy in range(copies)
    ]
    pq.write_table(pa.concat_tables(parts), folder / file)
    return Data(Recording.open(str(folder / file), columns), copies)


@dataclass(frozen=True)
class Outcome:
    """Repeats × questions: is the answer right, tokens spent, and which arm's the answer is."""

    right: Floats
    tokens: Floats
    by: NDArray[np.object_]


def spend(data: Data, strategy: Strategy, mean_tokens: float, repeats: int, seed: int) -> Outcome:
    """One budget for all questions, ``mean_tokens`` each, by the live market in virtual time."""
    recording = data.recording
    shape, once = (repeats, recording.questions), recording.questions // data.copies
    outcome = Outcome(np.zeros(shape), np.zeros(shape), np.full(shape, "", dtype=object))
    turn = [0]

    def closed(one: Closed) -> None:
        place = (turn[0], one.columns.first + one.number)
        reference, best = one.columns.references[one.number], one.solution.best
        if reference is not None:
            outcome.right[place] = one.solution.answer == reference
        else:
            outcome.right[place] = bool(best is not None and best.verdicts and best.verdicts[0].score == 1.0)
        outcome.tokens[place] = one.session.tokens
        outcome.by[place] = str(one.solution.facts.get("answered by", ""))

    job = VirtualJob(
        recording=recording,
        spans=recording.spans(SHARDS * data.copies),
        strategy=cache(lambda pool: strategy),
        cost=lambda tokens: max(1, tokens),
        worst=max(1, recording.largest or 1),
        seed=seed,
        repeat=0,
        closed=closed,
        slots=max(1, once // QUESTIONS_A_SLOT),
        open_questions=2 * -(-once // SHARDS),
    )
    for repeat in range(repeats):
        turn[0] = repeat
        run_market(replace(job, repeat=repeat), int(mean_tokens * recording.questions))
    return outcome


def _die(*parts: object) -> float:
    """A number in [0, 1) that depends on ``parts`` alone."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2.0**64
