"""A comparison over recorded samples: whole strategies replayed at equal budgets, without an engine.

Promises: every strategy runs as it would live (``actors.virtual``), over the same samples in the same orders; what it
asks for that was not recorded is refused by name, never left out in silence. Checks are paid from a budget in tokens at
their recorded cost; a budget in samples counts samples alone, and tells what the checks came to beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from pydantic import TypeAdapter

from actors.assembly import make_strategy
from actors.virtual_checks import Checking
from actors.virtual_session import VirtualSession
from pipeline.comparison import Floats, Measured, best_of, doublings
from pipeline.comparison_result import UNGRADED, Comparison, Contender, Standard, summarise
from pipeline.errors import EngineError, SourceError, Unrecorded, UsageError
from pipeline.recording import Columns, Recording
from pipeline.recording_parts import Wanted
from pipeline.records import Item, StopReason
from pipeline.replay import SHARD_SIZE, Settings, play, virtual_job
from pipeline.replay_grading import Grader
from pipeline.replay_verdicts import RecordedVerdicts, Verdicts
from pipeline.reviews import reviewers
from pipeline.run import open_run
from pipeline.spec import AnswerSpec, JobSpec, SamplingSpec, parse
from pipeline.strategy_files import Strategy
from pipeline.strategy_spec import (
    AdaptiveSpec,
    AggregateSpec,
    CascadeSpec,
    DiversifiedSpec,
    GreedySpec,
    SelfConsistencySpec,
    StrategySpec,
)
from pipeline.verifier_spec import VerifierSpec
from strategies import base

_TEMPLATES = "answers to other prompts (templates)"


@dataclass(frozen=True, slots=True)
class Budgets:
    """Means a question may take, in tokens or in samples; ascending."""

    amounts: list[float]
    in_tokens: bool


class Tell(Protocol):
    """Told what is replayed now."""

    def __call__(self, strategy: str, budget: float) -> None: ...


@dataclass(frozen=True)
class _Capped:
    """A strategy whose question has nothing left to draw is done: no budget could go on with it."""

    inner: base.Strategy

    @property
    def minimum(self) -> int:
        return self.inner.minimum

    @property
    def maximum(self) -> int:
        return self.inner.maximum

    async def solve(self, item: Item, session: base.Session) -> base.Solution:
        found = await self.inner.solve(item, session)
        assert isinstance(session, VirtualSession), "of a replay"
        if found.stop_reason is StopReason.EXHAUSTED and session.drawn == session.pool:
            return replace(found, stop_reason=StopReason.CAPPED, next_value=0.0)
        return found


def compare_recorded(
    source: str,
    columns: Mapping[str, str],
    strategies: Sequence[Strategy],
    budgets: Budgets,
    wanted: Sequence[float],
    settings: Settings,
    tell: Tell,
) -> Comparison:
    """Replay every strategy at every budget, and the baselines.

    Raises:
        UsageError: the source or the budgets are wrong, no question can be graded, or no strategy can be replayed.
        SourceError: the recording cannot be read.
    """
    checks = any(one.file.strategy.checks for one in strategies)
    refused: dict[str, str] = {}
    contenders: list[Contender] = []
    with Recording.open(source, columns, Wanted(text=checks, verdicts=checks, greedy=False)) as recording:
        job = _job_of(source)
        verifiers = _verifiers_of(source, job) if job is not None else None
        recorded = RecordedVerdicts(recording, _pages(recording))
        if not (recording.has_reference or recorded.scores):
            raise UsageError(UNGRADED)
        standards, notes = _standards(source, columns, recording)
        for strategy in strategies:
            try:
                contenders += _replayed(recording, strategy, recorded, job, verifiers, budgets, settings, tell)
            except (Unrecorded, EngineError) as error:
                refused[strategy.name] = str(error)
        has_tokens = recording.largest is not None
    if not contenders:
        raise Unrecorded("; ".join(refused.values()))
    return summarise(
        contenders,
        standards,
        wanted,
        settings.seed,
        has_tokens,
        source=source,
        unit="tokens" if budgets.in_tokens else "samples",
        each=True,
        repeats=settings.repeats,
        refused=refused,
        notes=notes,
    )


def unrecorded(spec: StrategySpec) -> str | None:
    """What a strategy is known to ask for beside further samples of the question as it stands; None: nothing."""
    if isinstance(spec, AdaptiveSpec):
        inside = [unrecorded(arm.strategy) for arm in spec.arms]
        templates = [_TEMPLATES for arm in spec.arms if arm.template is not None]
        return next(filter(None, [*inside, *templates]), None)
    if isinstance(spec, GreedySpec):
        return "samples at temperature 0; where they were recorded, greedy is among the baselines"
    if isinstance(spec, DiversifiedSpec):
        return "completions that go on from a beginning"
    if isinstance(spec, AggregateSpec):
        return "what a model says of the candidates it reads"
    if spec.uses:
        return f"samples of model {', '.join(map(repr, spec.uses))}"
    arms = spec.all_arms() if isinstance(spec, SelfConsistencySpec) else []
    stages = spec.stages if isinstance(spec, CascadeSpec) else []
    if any(arm.template is not None for arm in arms) or any(stage.templates for stage in stages):
        return _TEMPLATES
    return None


def _replayed(
    recording: Recording,
    strategy: Strategy,
    recorded: RecordedVerdicts,
    job: JobSpec | None,
    verifiers: list[Any] | None,
    budgets: Budgets,
    settings: Settings,
    tell: Tell,
) -> list[Contender]:
    """One strategy at every budget. Raises Unrecorded."""
    missing = unrecorded(strategy.file.strategy)
    if missing is not None:
        raise Unrecorded(f"{strategy.name} asks for {missing}, which {recording.name} does not hold")
    plain, answer = _Capped(make_strategy(strategy.file.strategy)), recording.answer or AnswerSpec()
    verdicts = Verdicts(strategy.name, strategy.file, recorded, verifiers, answer)
    try:
        base_job = virtual_job(recording, lambda pool: plain, budgets.in_tokens, settings)
        checking = Checking(verdicts.says, _tokens, verdicts.worst) if budgets.in_tokens else Checking(verdicts.says)
        asked = partial(_refuse_unrecorded, strategy.name, recording.name, job.sampling if job else None)
        virtual = replace(base_job, checking=checking, asked=asked)
        found = []
        for budget in budgets.amounts:
            tell(strategy.name, budget)
            outcome = play(virtual, recording.answer, budget, settings)
            measured = Measured(outcome.correct, outcome.tokens, outcome.verification, outcome.samples)
            reasons = {reason.value: count / settings.repeats for reason, count in outcome.reasons.items()}
            found.append(Contender(strategy.name, budget, measured, reasons))
        return found
    finally:
        verdicts.close()


def _refuse_unrecorded(name: str, source: str, sampling: SamplingSpec | None, draw: base.Draw) -> None:
    """Raise Unrecorded unless a recorded sample is what ``draw`` asks for."""
    for field in fields(draw):
        asked, plain = getattr(draw, field.name), getattr(sampling, field.name, field.default)
        if asked not in (field.default, plain):
            shown = f" {asked:g}" if isinstance(asked, float | int) else ""
            known = f"recorded at {plain:g}" if isinstance(plain, float | int) else "not what was recorded"
            raise Unrecorded(f"{name} asks for samples by {field.name}{shown}, which is {known} in {source}")


def _standards(source: str, columns: Mapping[str, str], recording: Recording) -> tuple[list[Standard], list[str]]:
    """The baselines, and what is to be said of them."""
    pools = recording.pools
    most = int(pools.min())
    grader = Grader(recording.answer)
    try:
        greedy = _greedy(source, columns, recording, grader)
        ks = doublings(most)
        best: list[list[Floats]] = [[] for _ in ks]
        tokens = []
        for span in recording.spans(_pages(recording)):
            page = recording.read(span)
            scores, spent = _first_samples(page, most, grader)
            for place, k in enumerate(ks):
                best[place].append(best_of(scores, k))
            tokens.append(spent)
    finally:
        grader.close()
    a_sample = np.concatenate(tokens) if recording.largest is not None else None
    standards = [greedy] if greedy is not None else []
    for k, found in zip(ks, best, strict=True):
        name = "random choice" if k == 1 else f"oracle pass@{k}"
        standards.append(Standard(name, k, np.concatenate(found), None if a_sample is None else k * a_sample))
    notes = [] if greedy is not None else [f"greedy: not recorded (no samples at temperature 0 in {source})"]
    if most < int(pools.max()):
        pool = f"questions have {most} to {int(pools.max())} samples, and no strategy draws more than were recorded"
        notes += [pool, f"random choice and oracle are over the first {most} samples, which every question has"]
    return standards, notes


def _greedy(source: str, columns: Mapping[str, str], recording: Recording, grader: Grader) -> Standard | None:
    """The samples at temperature 0, where every question has one."""
    try:
        cold = Recording.open(source, columns, Wanted(greedy=True))
    except SourceError:
        return None
    correct, tokens = (np.full(recording.questions, math.nan) for _ in range(2))
    with cold:
        found: dict[str, tuple[float, float]] = {}
        for span in cold.spans(_pages(cold)):
            page = cold.read(span)
            scores, spent = _first_samples(page, 1, grader)
            found.update(zip(page.item_ids, zip(scores[:, 0].tolist(), spent.tolist(), strict=True), strict=True))
        for span in recording.spans(_pages(recording)):
            for place, item_id in enumerate(recording.read(span).item_ids, start=span.start):
                if item_id not in found:
                    return None
                correct[place], tokens[place] = found[item_id]
        return Standard("greedy", 1, correct, tokens if cold.largest is not None else None)


def _first_samples(page: Columns, most: int, grader: Grader) -> tuple[Floats, Floats]:
    """Scores of each question's first ``most`` samples, questions × samples, and their mean tokens, by question."""
    count = len(page.item_ids)
    order = np.lexsort((page.sample_index, np.repeat(np.arange(count), np.diff(page.starts))))
    rows = np.stack([order[start : start + most] for start in page.starts[:-1]])
    scores = np.full(rows.shape, math.nan)
    for number, reference in enumerate(page.references):
        if reference is not None:
            scores[number] = [_score(page, row, reference, grader) for row in rows[number].tolist()]
        elif page.score is not None:
            scores[number] = np.nan_to_num(page.score[rows[number]])
    tokens = page.tokens[rows].mean(axis=1) if page.tokens is not None else np.zeros(count)
    return scores, tokens


def _score(page: Columns, row: int, reference: str, grader: Grader) -> float:
    code = page.answer.item(row)
    found = grader.correct(page.answers[code] if code >= 0 else None, reference)
    return math.nan if found is None else float(found)


def _job_of(source: str) -> JobSpec | None:
    """The job of the run that is compared over; None for Parquet files."""
    if source.lower().endswith(".parquet") or any(sign in source for sign in "*?["):
        return None
    return parse(open_run(source).info.job)


def _verifiers_of(source: str, job: JobSpec) -> list[Any]:
    """The run's own verifiers, and those that looked at its samples later."""
    later = reviewers(open_run(source).store.files).values()
    return [*job.verifiers, *TypeAdapter(list[VerifierSpec]).validate_python(list(later))]


def _pages(recording: Recording) -> int:
    return -(-recording.questions // SHARD_SIZE)


def _tokens(tokens: int) -> int:
    return tokens
