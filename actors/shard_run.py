"""One shard while a worker holds it: its questions, what became of them, and the tables it commits.

Owns no engine and no task. ``Admission`` groups say which questions may run together: fresh ones all at once, questions
that were in flight when a worker died in small groups, and last-chance ones alone, so that whatever kills workers is
found by bisection and set aside, and nothing else is.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from actors.audit import Audit
from actors.judge import Judgement
from actors.session import QuestionSession
from actors.siblings import Shared
from budgets.cost import CostModel
from budgets.curve import DemandCurve
from budgets.experience import Lesson, Subject, total
from budgets.messages import ShardLease, ShardState
from pipeline.records import Answer, DeadLetter, Decision, Item, Sample
from strategies.base import Draw, Solution

Journal = dict[str, dict[tuple[str, int], Sample]]
"""item_id → (prompt_key, sample_index) → sample."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Questions that are let in together. ``exclusive``: nothing else may run in the worker meanwhile."""

    shard_id: int
    items: tuple[Item, ...]
    exclusive: bool


@dataclass
class ShardRun:
    """Questions of one shard and their outcomes.

    ``generation`` counts how often the shard was opened for more; ``rule`` is the number of the rule that answers it.
    """

    shard_id: int
    generation: int
    min_value: float
    items: tuple[Item, ...]
    journal: Journal
    attempts: Mapping[str, int]
    cost: CostModel
    answers: dict[str, Answer] = field(default_factory=dict)
    dead: dict[str, DeadLetter] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    parked: DemandCurve = field(default_factory=DemandCurve)
    finished_tokens: int = 0
    total: int = 0
    lessons: dict[Subject, Lesson] = field(default_factory=dict)
    """What its answered questions taught. A borrowed one teaches at its lender, who answers it."""
    decided: dict[str, dict[str, str]] = field(default_factory=dict)
    """item_id → name → what was decided of the question."""
    shared: Shared = field(default_factory=dict)
    """Samples that need not be generated: other runs have them."""
    rule: int = 0
    committed: bool = False
    committing: bool = False

    @classmethod
    def open(
        cls,
        lease: ShardLease,
        rows: Iterable[Item | DeadLetter],
        journal: Iterable[Sample],
        attempts: Mapping[str, int],
        max_attempts: int,
        cost: CostModel,
        rule: int = 0,
        decided: dict[str, dict[str, str]] | None = None,
        shared: Shared | None = None,
    ) -> ShardRun:
        """Sort a shard's rows into questions to run and rows that are already lost."""
        paid: Journal = defaultdict(dict)
        for sample in journal:
            paid[sample.item_id][(sample.prompt_key, sample.sample_index)] = sample
        run = cls(lease.shard_id, lease.generation, lease.min_value, (), dict(paid), attempts, cost, rule=rule)
        run.decided = decided or {}
        run.shared = shared or {}
        items = []
        for row in rows:
            run.total += 1
            if isinstance(row, DeadLetter):
                run.dead[row.item_id] = row
            else:
                items.append(row)
        run.items = tuple(items)
        run.set_aside(max_attempts)
        return run

    def set_aside(self, max_attempts: int, only: Collection[str] | None = None) -> None:
        """Bury the questions that have no attempt left. ``only``: item ids to consider; default all."""
        kept = []
        for item in self.items:
            tries = self.attempts.get(item.item_id, 0)
            if tries < max_attempts or (only is not None and item.item_id not in only):
                kept.append(item)
                continue
            error = f"in flight in {tries} workers that died, the last time alone; set aside after {tries} attempts"
            self.bury(item, "engine", error)
        self.items = tuple(kept)

    def note(self, sample: Sample) -> None:
        """Take note of a paid sample, whether or not its question still wants it."""
        self.journal.setdefault(sample.item_id, {})[(sample.prompt_key, sample.sample_index)] = sample

    def admissions(self, max_attempts: int, only: Collection[str] | None = None) -> list[Admission]:
        """Fresh questions in one group; suspects in groups of √n; those with one attempt left alone.

        ``only``: item ids to consider; default all.
        """
        by_attempts: dict[int, list[Item]] = defaultdict(list)
        for item in self.items:
            if only is not None and item.item_id not in only:
                continue
            by_attempts[self.attempts.get(item.item_id, 0)].append(item)
        groups = []
        for tries, items in sorted(by_attempts.items()):
            size = len(items) if tries == 0 else math.isqrt(len(items) - 1) + 1 if tries < max_attempts - 1 else 1
            groups += [
                Admission(self.shard_id, tuple(items[at : at + size]), exclusive=tries > 0)
                for at in range(0, len(items), size)
            ]
        return groups

    def close(
        self,
        session: QuestionSession,
        solution: Solution,
        judgement: Judgement,
        seconds: float,
        audit: Audit | None = None,
    ) -> None:
        """A question is answered. Every sample ever paid for is kept, also what the strategy never asked for."""
        item = session.item
        self.lessons = total([self.lessons, session.lessons])
        paid = self._all_samples(session)
        judged = {
            (sample.prompt_key, sample.sample_index): verdicts
            for sample, verdicts in zip(session.drawn, judgement.verdicts, strict=True)
        }
        kept = [
            dataclasses.replace(sample, verdicts=judged.get((sample.prompt_key, sample.sample_index), sample.verdicts))
            for sample in paid
        ]
        tokens = self._keep(item, kept)
        self.answers[item.item_id] = Answer(
            item_id=item.item_id,
            answer=solution.answer,
            text=solution.best.text if solution.best else None,
            stop_reason=solution.stop_reason,
            confidence=solution.confidence,
            votes=solution.votes,
            samples=len(kept),
            tokens=tokens,
            verifier_tokens=sum(sample.verifier_tokens for sample in kept),
            price=session.price,
            next_value=solution.next_value if math.isfinite(solution.next_value) else 0.0,
            audit_samples=audit.samples if audit else 0,
            audit_answer=audit.answer if audit else None,
            flipped=audit.flipped if audit else None,
            audit_correct=audit.correct if audit else None,
            correct=judgement.correct,
            reference=item.reference,
            payload=item.payload,
        )
        self.decisions.append(
            Decision(
                item_id=item.item_id,
                samples=len(session.drawn),
                action=solution.stop_reason.value,
                value=solution.next_value,
                price=session.price,
                p_lead=solution.confidence,
                seconds=seconds,
                facts=json.dumps(dict(solution.facts), sort_keys=True),
            )
        )
        if solution.next_value > 0:
            # What it would go on with: the model it was asked last by.
            draw = Draw(model=session.drawn[-1].model if session.drawn else "")
            self.parked.add(solution.next_value, math.ceil(session.expected_tokens(draw)))

    def bury(self, item: Item, boundary: str, error: str, session: QuestionSession | None = None) -> None:
        """A question cannot be answered: record why, and keep what was paid for it."""
        paid = self._all_samples(session) if session else list(self.journal.get(item.item_id, {}).values())
        tokens = self._keep(item, paid)
        self.dead[item.item_id] = DeadLetter(
            item_id=item.item_id,
            boundary=boundary,
            error=error,
            attempts=self.attempts.get(item.item_id, 0),
            samples=len(paid),
            tokens=tokens,
            payload=item.payload,
        )

    @property
    def open_count(self) -> int:
        """Questions that have no outcome yet."""
        return self.total - len(self.answers) - len(self.dead)

    def state(self) -> ShardState:
        """What the allocator is told of this shard."""
        return ShardState(
            shard_id=self.shard_id,
            generation=self.generation,
            open=self.open_count,
            finished=len(self.answers) + len(self.dead),
            finished_tokens=self.finished_tokens,
            committed=self.committed,
            parked=tuple(self.parked.to_pairs()) if self.committed else (),
            lessons=tuple(self.lessons.items()),
        )

    def _keep(self, item: Item, paid: list[Sample]) -> int:
        """Book a question's samples; the tokens they took to generate."""
        self.samples[item.item_id] = paid
        self.finished_tokens += self.cost.of_all(paid)
        return sum(sample.billed_tokens for sample in paid)

    def _all_samples(self, session: QuestionSession) -> list[Sample]:
        """Samples the strategy saw, then others in the journal (an earlier strategy's, or past where it stopped)."""
        known = {(s.prompt_key, s.sample_index): s for s in session.drawn}
        for key, sample in self.journal.get(session.item.item_id, {}).items():
            known.setdefault(key, sample)
        return sorted(known.values(), key=lambda s: (s.prompt_key, s.sample_index))
