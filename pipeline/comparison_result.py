"""From what each strategy gave to one table: means, differences from the first strategy, baselines, cost to reach.

Pure. Promises: every row is about the same questions, those that all strategies can be graded on; how many were left
out is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.comparison import Floats, Measured, Resamples
from pipeline.errors import UsageError
from pipeline.replay_intervals import Interval

UNGRADED = (
    "no question has a reference that an answer can be compared with, so accuracy cannot be told: name the column "
    "(dataset.reference; over recorded samples --columns reference=… or score=…)"
)


@dataclass(frozen=True, slots=True)
class Contender:
    """One strategy at one budget. ``correct`` of ``measured`` is NaN where nothing tells; ``reasons``: questions by
    stop reason."""

    strategy: str
    budget: float
    measured: Measured
    reasons: dict[str, float]


@dataclass(frozen=True, slots=True)
class Standard:
    """Something to measure strategies by, such as ``oracle pass@4``, at ``samples`` a question; arrays as in
    ``Measured``. ``tokens`` None: not recorded.
    """

    name: str
    samples: int
    correct: Floats
    tokens: Floats | None


@dataclass(frozen=True, slots=True)
class Row:
    """A strategy at a budget. Means are over questions; ``tokens`` generate, ``verification`` checks, ``cost`` is both.

    ``difference`` and what follows are from the first strategy at the same budget; None in its own rows.
    """

    strategy: str
    budget: float
    accuracy: float
    accuracy_interval: Interval
    tokens: float | None
    verification: float
    cost: float
    cost_interval: Interval
    samples: float
    difference: float | None
    difference_interval: Interval | None
    p: float | None
    test: str | None
    stop_reasons: dict[str, float]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A standard's accuracy, at ``samples`` a question and the mean ``tokens`` they take."""

    name: str
    samples: int
    accuracy: float
    accuracy_interval: Interval
    tokens: float | None


@dataclass(frozen=True, slots=True)
class Reached:
    """What one strategy needs for one accuracy; see ``pipeline.comparison.Reach``. In tokens a question, or in samples
    where no tokens were recorded."""

    strategy: str
    accuracy: float
    cost: float | None
    cost_interval: tuple[float | None, float | None]
    at_most: bool
    reached: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it. ``questions`` were graded, ``left_out`` could not be; ``unit`` is what budgets are written in, and
    ``each`` whether they are a question's mean or the whole run's."""

    source: str
    questions: int
    left_out: int
    unit: str
    each: bool
    repeats: int
    seed: int
    rows: list[Row]
    baselines: list[Baseline]
    reach: list[Reached]
    refused: dict[str, str] = field(default_factory=dict)
    """Strategy → why it could not be compared."""
    notes: list[str] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    """Live: strategy and budget → the run's directory."""
    tokens_generated: int | None = None
    """Live: tokens that were generated for all of it together, what runs shared counted once."""
    tokens_charged: int | None = None

    @property
    def in_tokens(self) -> bool:
        """Whether costs are tokens; else samples."""
        return all(row.tokens is not None for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """The fields above, with JSON's types only."""
        raw = asdict(self)
        for rows in (raw["rows"], raw["baselines"], raw["reach"]):
            for row in rows:
                row.update({name: list(value) for name, value in row.items() if isinstance(value, tuple)})
        return raw


def summarise(
    contenders: Sequence[Contender],
    standards: Sequence[Standard],
    wanted: Sequence[float],
    seed: int,
    has_tokens: bool = True,
    **fields: Any,
) -> Comparison:
    """The comparison of ``contenders``, in their order; ``wanted``: accuracies to price; ``fields``: see Comparison.

    Raises:
        UsageError: no question can be graded.
    """
    told = [one.measured.correct for one in contenders] + [one.correct for one in standards]
    graded = ~np.isnan(np.stack(told)).any(axis=0)
    count = int(graded.sum())
    if not count:
        raise UsageError(UNGRADED)
    resamples = Resamples(count, seed)
    kept = [_only(one, graded) for one in contenders]
    costs = [one.measured.tokens if has_tokens else one.measured.samples for one in kept]
    first = {one.budget: one for one in kept if one.strategy == kept[0].strategy}
    rows = []
    for one, cost in zip(kept, costs, strict=True):
        base = first.get(one.budget) if one.strategy != kept[0].strategy else None
        accuracy, price = resamples.mean(one.measured.correct), resamples.mean(cost)
        apart = resamples.difference(base.measured.correct, one.measured.correct) if base is not None else None
        rows.append(
            Row(
                strategy=one.strategy,
                budget=one.budget,
                accuracy=accuracy.mean,
                accuracy_interval=accuracy.interval,
                tokens=float(one.measured.generation.mean()) if has_tokens else None,
                verification=float(one.measured.verification.mean()),
                cost=price.mean,
                cost_interval=price.interval,
                samples=float(one.measured.samples.mean()),
                difference=None if apart is None else apart.mean,
                difference_interval=None if apart is None else apart.interval,
                p=None if apart is None else apart.p,
                test=None if apart is None else apart.test,
                stop_reasons={reason: count for reason, count in one.reasons.items() if count},
            )
        )
    baselines = [_baseline(standard, graded, resamples) for standard in standards]
    reach = []
    for accuracy_wanted in wanted:
        for name in dict.fromkeys(one.strategy for one in kept):
            own = [at for at, one in enumerate(kept) if one.strategy == name]
            found = resamples.reach(
                [kept[at].measured.correct for at in own], [costs[at] for at in own], accuracy_wanted
            )
            reach.append(Reached(name, accuracy_wanted, *found))
    return Comparison(
        questions=count, left_out=len(told[0]) - count, seed=seed, rows=rows, baselines=baselines, reach=reach, **fields
    )


def parse_accuracies(values: Sequence[float]) -> list[float]:
    """Accuracies to reach, as given. Raises UsageError for what is no share."""
    for value in values:
        if not 0.0 < value <= 1.0:
            raise UsageError(f"--reach {value:g}: an accuracy is a share above 0 and up to 1, like 0.48")
    return list(values)


def _only(one: Contender, graded: Any) -> Contender:
    measured = one.measured
    kept = Measured(
        measured.correct[graded], measured.generation[graded], measured.verification[graded], measured.samples[graded]
    )
    return Contender(one.strategy, one.budget, kept, one.reasons)


def _baseline(standard: Standard, graded: Any, resamples: Resamples) -> Baseline:
    accuracy = resamples.mean(standard.correct[graded])
    tokens = None if standard.tokens is None else float(standard.tokens[graded].mean())
    return Baseline(standard.name, standard.samples, accuracy.mean, accuracy.interval, tokens)
