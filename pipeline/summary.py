"""How results read: the table that ends ``ponder run``, which ``ponder status`` prints too, and the forecast.

Pure: a ``RunStatus`` or a ``Forecast`` in, text out. Says what was measured, and marks what is an estimate as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipeline.progress import duration, in_words, use_in_words
from pipeline.records import StopReason
from pipeline.status import RunStatus

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.forecast import Cost, Forecast

MEANINGS: dict[StopReason, str] = {
    StopReason.SETTLED: "the vote could not plausibly change",
    StopReason.VERIFIED: "a verifier passed a sample",
    StopReason.CAPPED: "the maximum of samples was drawn",
    StopReason.HOPELESS: "more samples would not have helped",
    StopReason.EXHAUSTED: "budget or time went to others; a larger budget or a later deadline goes on from here",
    StopReason.FAILED: "no answer; the reasons are in dead_letter",
}


class Row(NamedTuple):
    """One line of the table."""

    name: str
    value: str


def rows(status: RunStatus) -> list[Row]:
    """The lines of the table, in order. Estimates (what a fixed N costs) only once the run is finished."""
    lines = [
        Row("state", status.state if status.seconds is None else f"{status.state} in {duration(status.seconds)}"),
        Row("questions", _questions(status)),
        Row("accuracy", _accuracy(status)),
        Row("samples", _samples(status)),
        Row("tokens", _tokens(status)),
        *_budget(status),
        *_fixed(status),
        *_audit(status),
    ]
    for reason, meaning in MEANINGS.items():
        lines.append(Row(reason.value, _reason(status.stop_reasons.get(reason.value, 0), meaning)))
    return [*lines, *paths(status)]


def paths(status: RunStatus) -> list[Row]:
    """Where the results are."""
    dead = f"{status.run}/dead_letter" if status.dead_lettered else "none"
    return [
        Row("answers", f"{status.run}/answers"),
        Row("all samples", f"{status.run}/samples"),
        Row("dead letters", dead),
    ]


def fixed_samples_for_same_tokens(status: RunStatus) -> float | None:
    """The N that a fixed number of samples a question could have been, for the tokens this run spent.

    N = tokens spent / (items × mean tokens a sample of this run); None where nothing was drawn.
    """
    if not status.mean_tokens_per_sample or not status.items:
        return None
    return status.tokens_spent / (status.items * status.mean_tokens_per_sample)


def tokens_for_fixed_samples(status: RunStatus, samples: int) -> float | None:
    """Tokens that ``samples`` for every question would have cost, at this run's mean tokens a sample."""
    if not status.mean_tokens_per_sample or not status.items:
        return None
    return status.items * samples * status.mean_tokens_per_sample


def as_text(status: RunStatus) -> str:
    """The table as plain lines, for pipes and logs. Nothing is cut."""
    return _aligned(rows(status))


def forecast_text(found: Forecast) -> str:
    """What ``ponder plan`` prints: the cost of the fewest and the most samples, and warnings."""
    goes_on = "is answered again by this strategy" if found.reselects else "resumes"
    resumes = f" (a run is there: it {goes_on}, {found.spent_before:,} tokens spent so far)" if found.resumes else ""
    lines = [
        Row("questions", f"{found.items:,}, shards: {found.shards:,}"),
        Row("reference", "yes" if found.has_reference else "no"),
        Row("output", f"{found.output}{resumes}"),
        Row("budget", _planned_budget(found)),
        *_planned_deadline(found),
        Row("minimum", _cost(found.min_samples, found.minimum, found.budget.unit)),
        Row("maximum", _cost(found.max_samples, found.maximum, found.budget.unit)),
        Row("covered", _covered(found)),
        Row(
            "assumed",
            f"prompts of about {found.prompt_tokens_mean:,.0f} tokens (from {found.rows_looked_at:,} rows); expected: "
            f"completions take {found.expected_fraction:.0%} of sampling.max_tokens ({found.max_tokens:,})",
        ),
    ]
    return "\n".join([_aligned(lines), *(f"warning: {line}" for line in found.warnings)])


def as_table(status: RunStatus) -> Table:
    """The table for a terminal; long paths fold instead of being cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, title=status.run, title_justify="left")
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for row in rows(status):
        # Text: brackets in a path are not markup.
        table.add_row(row.name, Text(row.value))
    return table


def _questions(status: RunStatus) -> str:
    done = status.answered + status.dead_lettered
    facts = [f"{status.items:,}", f"{status.answered:,} answered", f"{status.dead_lettered:,} without an answer"]
    return ", ".join(facts if done == status.items else [*facts, f"{status.items - done:,} not committed yet"])


def _accuracy(status: RunStatus) -> str:
    if status.accuracy is None or status.accuracy_interval is None:
        return "not known: no answered question has a reference to compare with"
    low, high = status.accuracy_interval
    counts = f"{status.correct:,} of {status.judged:,} right"
    return f"{status.accuracy:.1%} (95% interval {low:.1%} to {high:.1%}; {counts})"


def _samples(status: RunStatus) -> str:
    if not status.items or status.state != "finished":
        return f"{status.samples:,}"
    return f"{status.samples:,} ({status.samples / status.items:.2g} a question)"


def _tokens(status: RunStatus) -> str:
    if status.tokens_budget is None:
        return f"{status.tokens_spent:,}"
    share = f" ({status.tokens_spent / status.tokens_budget:.1%})" if status.tokens_budget else ""
    return f"{status.tokens_spent:,} of {status.tokens_budget:,}{share}"


def _budget(status: RunStatus) -> list[Row]:
    use = status.budget
    return [] if use is None or use.unit == "tokens" else [Row("budget", use_in_words(use))]


def _fixed(status: RunStatus) -> list[Row]:
    same = fixed_samples_for_same_tokens(status)
    if same is None or status.state != "finished":
        return []
    lines = [Row("same tokens, fixed N", f"about {same:.1f} samples for every question (estimate)")]
    most = status.max_samples
    cost = tokens_for_fixed_samples(status, most) if most and most > 1 else None
    if cost is not None and status.tokens_spent:
        times = cost / status.tokens_spent
        lines.append(Row(f"fixed {most} samples", f"about {cost:,.0f} tokens, {times:.1f}× what was spent (estimate)"))
    return lines


def _audit(status: RunStatus) -> list[Row]:
    audit = status.audit
    if audit is None:
        return []
    low, high = audit.interval
    rate = f"{audit.rate:.1%} (95% interval {low:.1%} to {high:.1%})"
    found = f"{rate} of answers change at the cap: {audit.flipped:,} of {audit.audited:,} settled ones"
    if audit.accuracy_early is None or audit.accuracy_full is None:
        return [Row("audit", found)]
    among = f"accuracy among {audit.judged:,} of them {audit.accuracy_early:.1%} at the stop"
    return [Row("audit", f"{found}; {among}, {audit.accuracy_full:.1%} at the cap")]


def _reason(count: int, meaning: str) -> str:
    return f"{count:,}  {meaning}" if count else "0"


def _planned_budget(found: Forecast) -> str:
    words = in_words(found.budget.unit, found.budget.total)
    if found.budget.unit == "tokens" or found.tokens_budget is None:
        return words
    return f"{words}, which is {found.tokens_budget:,} tokens"


def _planned_deadline(found: Forecast) -> list[Row]:
    if found.deadline is None:
        return []
    can = "" if found.deadline_tokens is None else f", about {found.deadline_tokens:,.0f} tokens from now"
    return [Row("deadline", f"{found.deadline}{can}")]


def _cost(samples: int, cost: Cost, unit: str) -> str:
    each = f"{samples} sample{'' if samples == 1 else 's'} for every question"
    tokens = f"{each}: about {cost.expected:,} tokens expected, {cost.worst:,} at worst"
    if unit == "tokens" and (cost.expected_in_budget, cost.worst_in_budget) == (cost.expected, cost.worst):
        return tokens
    priced = "counted as " if unit == "tokens" else ""
    expected, worst = (in_words(unit, amount) for amount in (cost.expected_in_budget, cost.worst_in_budget))
    return f"{tokens}; {priced}{expected} expected, {worst} at worst"


def _covered(found: Forecast) -> str:
    if found.budget_covers_minimum:
        return "the budget covers the minimum of every question"
    if found.budget_likely_covers_minimum:
        return "the budget is expected to cover the minimum of every question, but not in the worst case"
    return "the budget is not expected to cover the minimum of every question"


def _aligned(lines: Sequence[Row]) -> str:
    width = max(len(row.name) for row in lines)
    return "\n".join(f"{row.name:<{width}}  {row.value}" for row in lines)
