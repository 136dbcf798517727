"""A comparison that runs: one ordinary run a strategy and budget, each in a directory of the comparison's own.

Promises: every strategy, budget and directory is checked before anything is spent; a run is given the samples of the
others (the job's ``reuse``), so that what strategies ask for alike is generated once and charged to each, and equal
budgets stay equal; the same command resumes, and spends nothing once all is done. Owns no engine and no row: runs are
``pipeline.driver``'s, and what they gave is read from their directories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import driver
from pipeline.budget_spec import KINDS
from pipeline.comparison_result import Comparison, summarise
from pipeline.driver import Listen
from pipeline.errors import SpecError, UsageError
from pipeline.fingerprint import changed_sections, fingerprint_of, mismatch
from pipeline.readiness import refuse_unjudgeable, refuse_unready
from pipeline.reuse import other_models, same_shards
from pipeline.run_outcomes import Outcomes, outcomes_of
from pipeline.source import DatasetPlan, plan_dataset
from pipeline.spec import JobSpec, parse, read_job
from pipeline.store import Store
from pipeline.strategy_files import Strategy

GREEDY = "baselines/greedy"
"""Where the greedy run is, below the comparison's directory."""
NO_GREEDY = "greedy: not run"


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of the comparison. ``strategy`` is None of the greedy baseline."""

    strategy: str | None
    budget: float
    spec: JobSpec

    def __str__(self) -> str:
        return f"{self.strategy or 'greedy, the baseline,'} at {self.budget:,.10g}"


@dataclass(frozen=True, slots=True)
class Course:
    """All runs of a comparison, in order. ``unit``: what budgets are written in (a kind of ``BudgetSpec``)."""

    legs: list[Leg]
    unit: str
    output: str


def plan_course(
    job: str,
    overrides: Sequence[str],
    strategies: Sequence[Strategy],
    budgets: Sequence[float],
    output: str,
    greedy: bool,
) -> Course:
    """Check everything and say what will be run; nothing is spent and nothing written.

    ``budgets`` are amounts of what the job's budget is written in; none: the job's own. ``greedy``: the baseline is
    run, unless a strategy is greedy itself.

    Raises:
        UsageError: the job, a strategy, a budget or the data are wrong, there is no reference to compare with, or a
            directory holds a run of another job.
    """
    raw = read_job(job, overrides)
    if budgets:
        raw.setdefault("budget", {"tokens": budgets[0]})
    base = parse({**raw, "output": output})
    amounts = list(budgets) or [base.budget.amount]
    legs = []
    for strategy in strategies:
        for amount in amounts:
            name = f"{strategy.name}-{_written(amount)}"
            spec = _leg(strategy.path, strategy.file.into(raw), base, amount, f"{output}/{name}")
            legs.append(Leg(strategy.name, amount, spec))
    if greedy and all(one.file.strategy.kind != "greedy" for one in strategies):
        most = max(amounts)
        spec = _leg("greedy", {**raw, "strategy": {"kind": "greedy"}}, base, most, f"{output}/{GREEDY}")
        legs.insert(0, Leg(None, most, spec))
    plan = plan_dataset(base.dataset, base.cluster.shard_size)
    if not plan.has_reference:
        raise UsageError("dataset.reference: accuracy cannot be told without it; name the column of gold answers")
    seen: list[Any] = []
    for leg in legs:
        if leg.spec.verifiers not in seen:
            seen.append(leg.spec.verifiers)
            refuse_unready(leg.spec)
            refuse_unjudgeable(leg.spec, plan.shards)
        _refuse_other(leg, plan)
    return Course(legs, base.budget.kind, output)


def run_course(course: Course, listen: Listen, begins: Callable[[Leg, int], None]) -> None:
    """Start, resume or find finished every run; ``begins`` is told of each, with its place.

    Raises:
        RunFailed, StoreError, KeyboardInterrupt: as ``driver.run``; the same course again goes on from there.
    """
    for place, leg in enumerate(course.legs):
        begins(leg, place)
        others = [one.spec.output for one in course.legs if one is not leg and serves(one.spec, leg.spec)]
        driver.run(leg.spec.model_copy(update={"reuse": [*leg.spec.reuse, *others]}), listen)


def result_of(course: Course, wanted: Sequence[float], seed: int) -> Comparison:
    """The comparison of finished runs. Raises UsageError where no question can be graded."""
    outcomes: Outcomes = outcomes_of(
        [(leg.strategy, leg.budget, leg.spec.output) for leg in course.legs],
        course.legs[0].spec.answer,
        {leg.spec.output for leg in course.legs if leg.spec.strategy.kind == "greedy"},
    )
    return summarise(
        outcomes.contenders,
        outcomes.standards,
        wanted,
        seed,
        source=course.output,
        unit=course.unit,
        each=False,
        repeats=1,
        notes=[
            *([] if any(leg.spec.strategy.kind == "greedy" for leg in course.legs) else [NO_GREEDY]),
            *outcomes.notes,
        ],
        runs={f"{leg.strategy or 'greedy'} {_written(leg.budget)}": leg.spec.output for leg in course.legs},
        tokens_generated=outcomes.generated,
        tokens_charged=outcomes.charged,
    )


def _leg(path: str, raw: Mapping[str, Any], base: JobSpec, amount: float, output: str) -> JobSpec:
    """The job of one run. Raises SpecError naming the strategy's file."""
    section = base.budget.model_dump(mode="json", exclude_defaults=True)
    budget = {name: value for name, value in section.items() if name not in KINDS}
    try:
        return parse({**raw, "budget": {**budget, base.budget.kind: amount}, "output": output})
    except SpecError as error:
        raise SpecError(f"{path} at a budget of {_written(amount)}: {error}") from None


def _refuse_other(leg: Leg, plan: DatasetPlan) -> None:
    """Raise UsageError where the directory of ``leg`` holds another job's run, or one of other shards."""
    store = Store.open(leg.spec.output)
    try:
        info = store.run_info()
    except UsageError:
        return
    if store.planned() and not same_shards(store.read_plan(), plan.shards):
        raise UsageError(f"{leg.spec.output} was begun with another cluster.shard_size; set it as there")
    changed = changed_sections(info.fingerprint, fingerprint_of(leg.spec, plan.fingerprint))
    if changed:
        # A finished run could be selected again by another strategy; but what it spent would be another's.
        raise mismatch(leg.spec.output, info.job, leg.spec.model_dump(mode="json"), changed)


def serves(one: JobSpec, other: JobSpec) -> bool:
    """Whether the run of ``one`` has samples that ``other`` may ask for: strategy files may bring models of their own,
    and of one name there are then several."""
    alike = not other_models(one.model_dump(mode="json"), other.model_dump(mode="json"))
    return alike and Store.open(one.output).planned()


def _written(amount: float) -> str:
    """An amount as part of a directory's name."""
    return str(int(amount)) if amount == int(amount) else f"{amount:g}"
