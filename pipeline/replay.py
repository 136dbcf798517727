"""Replay: what another rule, weighting or budget would have made of samples that are there already. No GPU.

Promises: rules that decide alone and the market run the very strategy of a live job, the market the very market of one
(``actors.virtual``); every repeat draws the recorded samples in another order, the same one for every rule, so that
differences between rules are paired; intervals come from resampling questions. Draws are without replacement, so all
rules agree with the pool's own vote more and more as they approach its size: read accuracy beside agreement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.virtual import SLOTS, VirtualJob, run_alone, run_market
from actors.virtual_shard import Closed
from budgets.evidence import Evidence
from budgets.stopping import FixedN, StoppingRule, make_rule
from pipeline.errors import UsageError
from pipeline.recording import Recording
from pipeline.records import StopReason
from pipeline.replay_grading import Grader
from pipeline.replay_intervals import Interval, means_of
from pipeline.spec import AnswerSpec
from strategies.base import Strategy
from strategies.self_consistency import SelfConsistency

MARKET = "market"
DEFAULT_RULES = ("fixed:40", "adaptive_consistency:0.95", "esc:5", "ppr:0.05", MARKET)
DEFAULT_BUDGETS = (3.0, 5.0, 8.0)
SHARD_SIZE = 256
"""Questions a shard where ``shards`` is not given: the default of ``cluster.shard_size``."""
QUESTIONS_A_SLOT = 16
"""A job has far more questions than slots; where a recording has few, fewer samples run at once. Samples that run side
by side are chosen blind to each other: with a slot for every question the market is left nothing to choose."""
_REASONS = list(StopReason)


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask of a recording: a ``rule`` by itself, or the market at a budget a question.

    ``budget`` is the mean a question may take, in samples, or in recorded tokens where ``in_tokens``; None for a rule.
    """

    rule: str
    budget: float | None = None
    in_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How questions are replayed. ``shards`` None: as many as a job's default size gives. ``slots``: samples a
    virtual worker runs at once; None: a job's default, fewer where there are few questions."""

    repeats: int = 20
    seed: int = 0
    evidence: Evidence = field(default_factory=Evidence)
    max_samples: int = 40
    shards: int | None = None
    workers: int = 1
    slots: int | None = None
    open_questions: int | None = None

    def __post_init__(self) -> None:
        for name in ("repeats", "max_samples", "workers", "shards", "slots", "open_questions"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} is {value}: it must be a whole number >= 1")


@dataclass(frozen=True, slots=True)
class Result:
    """What one question gave. Means are over questions and repeats; intervals are 95%, over questions.

    ``pool`` is the mean number of samples recorded a question. ``mean_tokens`` (completion tokens) and ``accuracy`` are
    None where the recording has no such column. ``agreement``: the share of answers that are a most voted answer of the
    question's whole pool. ``stop_reasons``: questions by reason, mean over repeats; they sum to ``questions``.
    """

    rule: str
    evidence: str
    budget_samples: float | None
    budget_tokens: float | None
    questions: int
    repeats: int
    seed: int
    pool: float
    pool_min: int
    pool_max: int
    mean_samples: float
    mean_samples_interval: Interval
    mean_tokens: float | None
    mean_tokens_interval: Interval | None
    accuracy: float | None
    accuracy_interval: Interval | None
    agreement: float
    agreement_interval: Interval
    stop_reasons: dict[str, float]
    shards: int | None = None
    workers: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields above, with JSON's types only."""
        raw = {name: getattr(self, name) for name in self.__slots__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in raw.items()}


def questions_of(rules: Sequence[str], samples: Sequence[float], tokens: Sequence[float]) -> list[Question]:
    """Every rule once, the market at every budget; in that order. Raises UsageError or SpecError (an unknown rule)."""
    if not rules:
        raise UsageError("--rules is empty; name at least one, for example market")
    for flag, budgets in (("--budget-samples", samples), ("--budget-tokens", tokens)):
        for budget in budgets:
            if not 0.0 < budget < math.inf:
                raise UsageError(f"{flag} is {budget!r}: a budget is a finite number > 0, the mean a question may take")
    found: list[Question] = []
    for rule in rules:
        parse_rule(rule)
        if rule.split(":")[0] == MARKET:
            budgets = [] if tokens and not samples else [*(samples or DEFAULT_BUDGETS)]
            found += [Question(rule, budget) for budget in budgets]
            found += [Question(rule, budget, in_tokens=True) for budget in tokens]
        else:
            found.append(Question(rule))
    return found


def parse_rule(text: str) -> StoppingRule | None:
    """A rule's name as a stopping rule; None for ``market``, whose questions stop when they are outbid or at the cap.

    ``market:RULE`` lets questions settle by RULE as well, as a job's do: ``market:adaptive_consistency:0.95``.

    Raises:
        SpecError: the rule is unknown, or its number is wrong.
    """
    name, _, rest = text.partition(":")
    if name == MARKET:
        return make_rule(rest) if rest else None
    try:
        make_rule(name)
    except UsageError as error:
        raise type(error)(f"--rules: {error}; or {MARKET}") from None
    try:
        return make_rule(text)
    except UsageError as error:
        raise type(error)(f"--rules: {error}") from None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What one question gave, by question of the recording: means over repeats. Made for paired comparisons.

    ``tokens``: completion tokens; ``verification``: tokens of checks. ``correct`` is NaN where nothing tells.
    ``reasons``: how often each ``StopReason`` was given, over all repeats.
    """

    samples: NDArray[np.float64]
    tokens: NDArray[np.float64]
    verification: NDArray[np.float64]
    correct: NDArray[np.float64]
    agrees: NDArray[np.float64]
    reasons: dict[StopReason, int]
    shards: int


def replay(recording: Recording, question: Question, settings: Settings) -> Result:
    """Ask one question of a recording. Raises what ``outcomes`` raises."""
    return summarise(recording, question, settings, outcomes(recording, question, settings))


def outcomes(recording: Recording, question: Question, settings: Settings) -> Outcomes:
    """Ask one question of a recording, and tell the answers apart.

    Raises:
        UsageError: a token budget over a recording without tokens.
        SourceError: the recording cannot be read any more.
    """
    job = virtual_job(recording, _strategies(question, settings), question.in_tokens, settings)
    return play(job, recording.answer, question.budget, settings)


def virtual_job(
    recording: Recording, strategy: Callable[[int], Strategy], in_tokens: bool, settings: Settings
) -> VirtualJob:
    """What is to be played: ``strategy`` by the size of a question's pool, a budget counted in tokens or in samples.

    Raises:
        UsageError: a token budget over a recording without tokens.
    """
    count = recording.questions
    if in_tokens and recording.largest is None:
        raise UsageError(f"--budget-tokens: {recording.name} has no completion_tokens; name their column by --columns")
    job = VirtualJob(
        recording=recording,
        spans=recording.spans(settings.shards or -(-count // SHARD_SIZE)),
        strategy=strategy,
        cost=_tokens if in_tokens else _one,
        worst=max(1, recording.largest or 1) if in_tokens else 1,
        seed=settings.seed,
        repeat=0,
        closed=_unheard,
        slots=settings.slots or max(1, min(SLOTS, count // (QUESTIONS_A_SLOT * settings.workers))),
    )
    return job if settings.open_questions is None else replace(job, open_questions=settings.open_questions)


def play(job: VirtualJob, answer: AnswerSpec | None, budget: float | None, settings: Settings) -> Outcomes:
    """Play ``job`` in every order; ``budget``: the mean a question may take; None: each question decides by itself.

    ``answer``: how answers are compared; see ``pipeline.replay_grading``.
    """
    count = job.recording.questions
    sheet = _Sheet(count, answer)
    try:
        for repeat in range(settings.repeats):
            turn = replace(job, repeat=repeat, closed=sheet.closed)
            if budget is None:
                run_alone(turn)
            else:
                run_market(turn, max(1, math.floor(budget * count)), settings.workers)
            sheet.fold()
    finally:
        sheet.close()
    return sheet.outcomes(len(job.spans))


def summarise(recording: Recording, question: Question, settings: Settings, found: Outcomes) -> Result:
    """Outcomes as means and intervals over questions."""
    columns = {"samples": found.samples, "tokens": found.tokens, "correct": found.correct, "agrees": found.agrees}
    means = means_of(columns, settings.seed)
    pools, has_tokens = recording.pools, recording.largest is not None
    accuracy, market = means["correct"], question.budget is not None
    return Result(
        rule=question.rule,
        evidence=settings.evidence.kind,
        budget_samples=None if question.in_tokens else question.budget,
        budget_tokens=question.budget if question.in_tokens else None,
        questions=recording.questions,
        repeats=settings.repeats,
        seed=settings.seed,
        pool=float(pools.mean()),
        pool_min=int(pools.min()),
        pool_max=int(pools.max()),
        mean_samples=means["samples"].mean,
        mean_samples_interval=means["samples"].interval,
        mean_tokens=means["tokens"].mean if has_tokens else None,
        mean_tokens_interval=means["tokens"].interval if has_tokens else None,
        accuracy=accuracy.mean if accuracy.questions else None,
        accuracy_interval=accuracy.interval if accuracy.questions else None,
        agreement=means["agrees"].mean,
        agreement_interval=means["agrees"].interval,
        stop_reasons={reason.value: count / settings.repeats for reason, count in found.reasons.items()},
        shards=found.shards if market else None,
        workers=settings.workers if market else None,
    )


def _unheard(_: Closed) -> None:
    """Nobody listens before a job is played."""


def _tokens(tokens: int) -> int:
    return tokens


def _one(tokens: int) -> int:
    return 1


def _strategies(question: Question, settings: Settings) -> Callable[[int], Strategy]:
    """The strategy by the size of a question's pool, which caps what it may ask for."""
    rule = parse_rule(question.rule)

    @cache
    def strategy(pool: int) -> Strategy:
        most = min(settings.max_samples, pool)
        # Without a rule nothing but price and cap ends a question.
        stop = rule if rule is not None else FixedN(most)
        return SelfConsistency(min_samples=1, max_samples=most, rule=stop, evidence=settings.evidence)

    return strategy


class _Sheet:
    """Outcomes by question: those of the repeat in hand, and their sums over the repeats before it."""

    def __init__(self, count: int, answer: AnswerSpec | None) -> None:
        self._grader = Grader(answer)
        self._now: NDArray[np.float64] = np.zeros((count, 5))
        self._sum: NDArray[np.float64] = np.zeros((count, 5))
        self._reason: NDArray[np.uint8] = np.zeros(count, dtype=np.uint8)
        self._reasons: NDArray[np.int64] = np.zeros(len(_REASONS), dtype=np.int64)
        self._folds = 0

    def closed(self, closed: Closed) -> None:
        """Note an answer; a later generation of the same question replaces it."""
        place = closed.columns.first + closed.number
        grade, session = self._grader.grade(closed), closed.session
        self._now[place] = (session.drawn, session.tokens, session.verification, grade.correct, grade.agrees)
        self._reason[place] = _REASONS.index(closed.solution.stop_reason)

    def fold(self) -> None:
        """A repeat is over: every question has an outcome."""
        self._sum += self._now
        self._reasons += np.bincount(self._reason, minlength=len(_REASONS))
        self._folds += 1

    def close(self) -> None:
        """Let go of what grading holds."""
        self._grader.close()

    def outcomes(self, shards: int) -> Outcomes:
        """Means over the repeats folded so far."""
        reasons = {reason: int(count) for reason, count in zip(_REASONS, self._reasons, strict=True)}
        samples, tokens, verification, correct, agrees = self._sum.T / self._folds
        return Outcomes(samples, tokens, verification, correct, agrees, reasons, shards)
