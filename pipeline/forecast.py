"""What a job would cost, before anything is spent: the work behind ``ponder plan``.

Promises: reads the dataset exactly as a run would and refuses what a run would refuse; spends nothing, writes nothing,
and loads neither ray, torch nor vllm. ``cost_of`` is pure. Token counts of prompts are estimates from their length, as
the tokenizer is not loaded; every assumption is a named constant and part of the output.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from budgets.cost import ByClass, Usage
from pipeline.budget_spec import BudgetSpec, BudgetUse, budget_use, computable, cost_model, in_kind, tokens_in
from pipeline.deadline import resolve_deadline
from pipeline.errors import UsageError
from pipeline.records import DeadLetter, Item, Shard
from pipeline.spec import DatasetSpec, JobSpec, field_of

CHARACTERS_PER_TOKEN = 3.0
"""English prose has about 4 characters a token, code and digits 1 to 3: this errs towards costlier prompts."""

EXPECTED_FRACTION = 0.5
"""Share of ``sampling.max_tokens`` a completion is expected to take: people set the limit well above the typical."""

_LOOKED_AT_SHARDS = 8
_LOOKED_AT_ROWS = 32
_SHOWN_PROMPT_ROWS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Computed tokens, generation alone. ``worst``: every completion at its limit, no prompt token cached.

    ``expected``: completions at ``EXPECTED_FRACTION`` of it, each prompt computed once for all its samples and a
    beginning that all prompts share once for the run, as prefix caching does. ``…_in_budget``: what they cost, in the
    unit the budget is written in.
    """

    expected: int
    worst: int
    expected_in_budget: float
    worst_in_budget: float


@dataclass(frozen=True, slots=True)
class Prompts:
    """Estimated tokens: ``mean`` and ``longest`` of a prompt, and ``shared`` by the beginnings of all."""

    mean: float
    longest: int
    shared: int


@dataclass(frozen=True)
class Forecast:
    """The answer of ``ponder plan``. ``minimum`` and ``maximum``: min_samples or max_samples for every question.

    ``budget_covers_minimum`` is against the worst case, ``budget_likely_covers_minimum`` against the expected one.
    ``rows_looked_at`` is how many rows the prompt estimates come from; ``spent_before`` the tokens a run that is there
    already has paid for, out of the same budget; ``reselects``: that run is finished, and another strategy answers it
    again, from what is paid first. ``budget`` is in the unit its user wrote; ``tokens_budget`` is None
    where classes of tokens differ in price. ``deadline`` is a moment (ISO 8601); ``deadline_tokens`` what can be
    computed before it at ``price.tokens_per_second``, all workers together, None where either is not given.
    """

    output: str
    resumes: bool
    items: int
    shards: int
    has_reference: bool
    tokens_budget: int | None
    spent_before: int
    min_samples: int
    max_samples: int
    max_tokens: int
    prompt_tokens_mean: float
    prompt_tokens_longest: int
    rows_looked_at: int
    expected_fraction: float
    minimum: Cost
    maximum: Cost
    budget_covers_minimum: bool
    budget_likely_covers_minimum: bool
    budget: BudgetUse
    deadline: str | None = None
    deadline_tokens: float | None = None
    reselects: bool = False
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The fields above, with JSON's types only."""
        return dataclasses.asdict(self)


def forecast(spec: JobSpec, now: datetime | None = None) -> Forecast:
    """Check the job, its data and its output directory, and say what the run could cost. ``now``: default, the clock.

    Raises:
        UsageError: whatever ``run`` would refuse before spending.
        StoreError: the output directory cannot be read.
    """
    from pipeline.fingerprint import fingerprint_of
    from pipeline.readiness import refuse_unjudgeable, refuse_unready
    from pipeline.reuse import refuse_unlike
    from pipeline.source import plan_dataset

    refuse_unready(spec)
    now = now or datetime.now().astimezone()
    deadline = None if spec.budget.deadline is None else resolve_deadline(spec.budget.deadline, now)
    plan = plan_dataset(spec.dataset, spec.cluster.shard_size)
    fingerprint = fingerprint_of(spec, plan.fingerprint)
    refuse_unlike(spec, fingerprint, plan.shards)
    found_there = _look_before(spec, fingerprint)
    unjudged = refuse_unjudgeable(spec, plan.shards)
    before = found_there.usage if found_there else None
    rows = list(_some_rows(spec.dataset, plan.shards))
    items = [row for row in rows if isinstance(row, Item)]
    prompts = measure(items)
    least, most = samples_range(spec)
    minimum, maximum = (cost_of_mix(spec, plan.items, prompts, mix) for mix in mixes(spec))
    found = Forecast(
        output=spec.output,
        resumes=before is not None,
        reselects=bool(found_there and found_there.reselects),
        items=plan.items,
        shards=len(plan.shards),
        has_reference=plan.has_reference,
        tokens_budget=tokens_in(spec.budget),
        spent_before=before.billed if before else 0,
        min_samples=least,
        max_samples=most,
        max_tokens=spec.sampling.max_tokens,
        prompt_tokens_mean=round(prompts.mean, 1),
        prompt_tokens_longest=prompts.longest,
        rows_looked_at=len(rows),
        expected_fraction=EXPECTED_FRACTION,
        minimum=minimum,
        maximum=maximum,
        budget_covers_minimum=spec.budget.amount >= minimum.worst_in_budget,
        budget_likely_covers_minimum=spec.budget.amount >= minimum.expected_in_budget,
        budget=budget_use(spec.budget, cost_model(spec.budget).of_usage(before or Usage())),
        deadline=None if deadline is None else deadline.isoformat(timespec="seconds"),
        deadline_tokens=None if deadline is None else _computable(spec, (deadline - now).total_seconds()),
    )
    dead = [row for row in rows if isinstance(row, DeadLetter)]
    return dataclasses.replace(found, warnings=[*_row_warnings(dead, len(rows)), *unjudged, *warnings_of(spec, found)])


def mixes(spec: JobSpec) -> tuple[dict[str, int], dict[str, int]]:
    """Model → samples a question, at the least and at the most.

    Where the strategy cannot tell which model it will ask how often, all samples are taken to be of the dearest. Pure.
    """
    by_model = spec.strategy.by_model
    if by_model is not None:
        least, most = ({name: counts[at] for name, counts in by_model.items()} for at in (0, 1))
        return least, most
    price = cost_model(spec.budget)
    dearest = max(spec.asked, key=lambda name: price.worst(1, 1, name))
    return {dearest: spec.strategy.least}, {dearest: spec.strategy.most}


def cost_of_mix(spec: JobSpec, items: int, prompts: Prompts, mix: Mapping[str, int]) -> Cost:
    """What ``mix`` for each of ``items`` questions could cost: every model computes its prompts itself. Pure."""
    parts = [cost_of(items, n, prompts, spec.sampling.max_tokens, spec.budget, name) for name, n in mix.items()]
    return Cost(
        expected=sum(part.expected for part in parts),
        worst=sum(part.worst for part in parts),
        expected_in_budget=sum(part.expected_in_budget for part in parts),
        worst_in_budget=sum(part.worst_in_budget for part in parts),
    )


def cost_of(items: int, samples: int, prompts: Prompts, max_tokens: int, budget: BudgetSpec, model: str = "") -> Cost:
    """What ``samples`` of a model for each of ``items`` questions could cost. Pure."""
    price = cost_model(budget)
    completions = items * samples * max_tokens
    prompting = items * samples * prompts.mean
    once = min(prompting, items * (prompts.mean - prompts.shared) + prompts.shared)
    tokens = ByClass(math.ceil(once), math.floor(prompting - once), math.ceil(EXPECTED_FRACTION * completions))
    # Where the cache were dearer than computing, the worst would be to find all of a prompt there.
    worst = price.worst(math.ceil(prompting), completions, model)
    return Cost(
        expected=math.ceil(once + EXPECTED_FRACTION * completions),
        worst=math.ceil(prompting) + completions,
        expected_in_budget=in_kind(budget, tokens.at(price.rates(model))),
        worst_in_budget=in_kind(budget, worst),
    )


def measure(items: Sequence[Item]) -> Prompts:
    """Estimated prompt lengths of ``items``; zeros where there are none. Pure."""
    texts = [_text(item) for item in items]
    if not texts:
        return Prompts(0.0, 0, 0)
    # What one lone prompt shares with itself is no saving.
    shared = _shared_length(texts) if len(texts) > 1 else 0
    mean = sum(map(len, texts)) / len(texts)
    return Prompts(
        mean=mean / CHARACTERS_PER_TOKEN,
        longest=round(max(map(len, texts)) / CHARACTERS_PER_TOKEN),
        shared=int(shared / CHARACTERS_PER_TOKEN),
    )


def samples_range(spec: JobSpec) -> tuple[int, int]:
    """The fewest and the most samples the job's strategy draws for a question."""
    return spec.strategy.least, spec.strategy.most


def warnings_of(spec: JobSpec, found: Forecast) -> list[str]:
    """What is legal, yet likely not meant; each line names field, value and mend. Pure."""
    lines = [*_budget_warnings(spec, found), *_deadline_warnings(found)]
    if not found.has_reference:
        lines.append("dataset.reference: not set, so no accuracy will be reported")
    for name, model in spec.asked.items():
        room = model.max_model_len - found.max_tokens
        if found.prompt_tokens_longest > room:
            fate = "are not answered by this model" if name else "become dead letters"
            lines.append(
                f"{field_of(name)}.max_model_len: {model.max_model_len} leaves {room} tokens for a prompt, but one has "
                f"about {found.prompt_tokens_longest}; prompts that do not fit {fate}"
            )
    lines += [
        f"models.{name}: the strategy does not ask it, so it is not loaded; name it there or leave it out"
        for name in spec.models
        if name not in spec.asked
    ]
    if spec.strategy.by_model is None:
        lines.append("strategy: which model it asks how often is not forecast; all samples are priced as the dearest's")
    if spec.cluster.workers > found.shards:
        lines.append(
            f"cluster.workers: {spec.cluster.workers} for shards: {found.shards}, so some workers would idle; "
            "lower cluster.workers or cluster.shard_size"
        )
    return lines


def _budget_warnings(spec: JobSpec, found: Forecast) -> Iterable[str]:
    use = found.budget
    name, have = f"budget.{use.unit}", _said(use, use.total)
    model = cost_model(spec.budget)
    mean = round(found.prompt_tokens_mean)
    one = in_kind(spec.budget, min(model.worst(mean, found.max_tokens, name) for name in spec.asked))
    if use.total < one:
        yield (
            f"{name}: {have} may not pay for a single sample, which reserves about {_said(use, one)}; every question "
            "would end as exhausted: raise it, or lower sampling.max_tokens"
        )
    elif not found.budget_likely_covers_minimum:
        yield (
            f"{name}: {have} is less than strategy.min_samples ({found.min_samples}) for every question is expected to "
            f"cost (about {_said(use, found.minimum.expected_in_budget)}): some questions would end as exhausted "
            "without any"
        )
    elif not found.budget_covers_minimum:
        yield (
            f"{name}: {have} covers the minimum as expected (about {_said(use, found.minimum.expected_in_budget)}), "
            f"not in the worst case (about {_said(use, found.minimum.worst_in_budget)})"
        )
    # What verifiers cost is not forecast, so nothing is said of a budget that may be for them.
    if use.total > found.maximum.worst_in_budget and not spec.budget.price.verifiers:
        most = _said(use, found.maximum.worst_in_budget)
        yield f"{name}: {have} is more than the strategy can use (at most {most})"
    if found.resumes and use.spent >= use.total:
        spent = _said(use, use.spent)
        yield f"{name}: {have}, of which the run in {found.output} has spent {spent}: raise it to draw more"


def _deadline_warnings(found: Forecast) -> Iterable[str]:
    can = found.deadline_tokens
    if can is None:
        return
    by = f"budget.deadline: at price.tokens_per_second about {can:,.0f} tokens can be computed by {found.deadline}"
    if can < found.minimum.expected:
        yield (
            f"{by}, fewer than strategy.min_samples ({found.min_samples}) for every question is expected to take "
            f"(about {found.minimum.expected:,}): some questions would end as exhausted without any; allow more time "
            "or add workers"
        )
    elif found.tokens_budget is not None and can < min(
        found.tokens_budget - found.spent_before, found.maximum.expected
    ):
        left = found.tokens_budget - found.spent_before
        yield f"{by}, fewer than the {left:,} the budget has left: time ends the run before the budget does"


def _said(use: BudgetUse, amount: float) -> str:
    """An amount as the field shows it: the unit is in the field's name."""
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:,.4g}"


def _computable(spec: JobSpec, seconds: float) -> float | None:
    gpus = spec.cluster.gpus_per_worker or sum(model.tensor_parallel for model in spec.asked.values())
    return computable(spec.budget, spec.cluster.workers * gpus, seconds)


def _row_warnings(dead: Sequence[DeadLetter], looked_at: int) -> list[str]:
    if not dead:
        return []
    shown = "; ".join(letter.error for letter in dead[:_SHOWN_PROMPT_ROWS])
    return [f"dataset: {len(dead)} of {looked_at} rows looked at cannot be asked and become dead letters: {shown}"]


def _some_rows(dataset: DatasetSpec, shards: Sequence[Shard]) -> Iterable[Item | DeadLetter]:
    """The first rows of a few shards spread over the dataset."""
    from pipeline.source import read_shard

    looked_at = min(len(shards), _LOOKED_AT_SHARDS)
    for at in range(looked_at):
        yield from islice(read_shard(dataset, shards[at * len(shards) // looked_at]), _LOOKED_AT_ROWS)


def _shared_length(texts: Sequence[str]) -> int:
    """Characters of the beginning that all have in common: what the first and the last in order share, all share."""
    first, last = min(texts), max(texts)
    pairs = zip(first, last, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(last)))


def _text(item: Item) -> str:
    if item.messages is not None:
        return "\n".join(f"{message.role}: {message.content}" for message in item.messages)
    return item.prompt or ""


@dataclass(frozen=True, slots=True)
class _Before:
    """The run that is there: what it spent, and whether this job selects it again by another strategy."""

    usage: Usage
    reselects: bool


def _look_before(spec: JobSpec, fingerprint: dict[str, str]) -> _Before | None:
    """The run in ``spec.output``; None where there is none.

    Raises:
        RunMismatch: it is the run of another job, or its budget is counted in another unit.
        UsageError: the directory holds something that is no run.
    """
    from pipeline.filesystem import open_files

    # The store brings Arrow along: a new directory, the common case, is answered without it.
    names = open_files(spec.output).list("")
    if not names:
        return None
    from pipeline.fingerprint import RULE, changed_sections, mismatch
    from pipeline.spending import total
    from pipeline.store import RUN, Store, refuse_other_unit

    store = Store.open(spec.output)
    if RUN not in names:
        raise UsageError(f"output {store.url}: not empty, yet holds no {RUN}; name an empty or new directory")
    info = store.run_info()
    changed = changed_sections(info.fingerprint, fingerprint)
    reselects = changed == [RULE] and store.finished() is not None
    if changed and not reselects:
        raise mismatch(store.url, info.job, spec.model_dump(mode="json"), changed)
    refuse_other_unit(store.url, store.budget_spec(), spec.budget)
    return _Before(total(store.journal_usage()), reselects)
