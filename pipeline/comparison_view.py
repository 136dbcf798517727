"""How a comparison reads: one table, and one picture of accuracy against cost.

Pure but for matplotlib, which is loaded only to draw, with a backend that needs no display.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import Any

from pipeline.comparison_result import Baseline, Comparison, Reached, Row
from pipeline.frontier import aligned, reach
from pipeline.progress import in_words
from pipeline.replay_intervals import Interval

_INCHES = (8.0, 5.5)
_DPI = 150
_LEGEND_COLUMNS = 3


def table(found: Comparison) -> str:
    """Means with half the width of their 95% intervals; accuracies and differences in percent and points."""
    first = found.rows[0].strategy
    lines: list[Sequence[str]] = [
        ("strategy", "budget", "accuracy %", "tokens", "checks", "samples", f"against {first}", "p")
    ]
    lines += [_line(row, found) for row in found.rows]
    lines += [_baseline(one) for one in found.baselines]
    parts = [aligned(lines, left={0})]
    parts += [_reached(one, found.in_tokens) for one in found.reach]
    parts += [f"{name}: left out: {why}" for name, why in found.refused.items()]
    if found.tokens_charged is not None and found.tokens_generated is not None:
        shared = "what runs have in common was generated once"
        parts.append(f"{found.tokens_charged:,} tokens charged, {found.tokens_generated:,} generated: {shared}")
    return "\n".join([*parts, *found.notes, _footer(found)])


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def picture(found: Comparison) -> bytes:
    """Accuracy against what a question cost, checks included, as a PNG: a line a strategy over its budgets."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axis = pyplot.subplots(figsize=_INCHES)
    for name in dict.fromkeys(row.strategy for row in found.rows):
        _plot(axis, name, [row for row in found.rows if row.strategy == name])
    oracle = [one for one in found.baselines if one.name.startswith("oracle")]
    _standards(axis, oracle, "oracle pass@k", found.in_tokens, linestyle=":", marker="^")
    for one in found.baselines:
        if one not in oracle:
            _standards(
                axis, [one], one.name, found.in_tokens, linestyle="none", marker="s" if one.name == "greedy" else "D"
            )
    for accuracy in dict.fromkeys(one.accuracy for one in found.reach):
        axis.axhline(100 * accuracy, color="grey", linewidth=0.6, linestyle="--")
    if all(row.cost > 0 for row in found.rows):
        # An oracle's samples cost many times what a strategy's do.
        axis.set_xscale("log")
        # Plain numbers: 20, 50, 100 in place of powers of ten.
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    cost = "tokens a question, checks included" if found.in_tokens else "samples a question"
    axis.set_xlabel(f"{cost} (mean)")
    axis.set_ylabel("accuracy (%)")
    axis.grid(alpha=0.3)
    axis.set_title(f"{found.questions:,} questions, 95% intervals over questions", fontsize="medium")
    handles, names = axis.get_legend_handles_labels()
    rows = -(-len(names) // _LEGEND_COLUMNS)
    figure.legend(handles, names, loc="lower center", ncols=_LEGEND_COLUMNS, fontsize="small", frameon=False)
    figure.tight_layout(rect=(0, 0.045 * rows, 1, 1))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    pyplot.close(figure)
    return drawn.getvalue()


def budget_words(found: Comparison, budget: float) -> str:
    """A budget as it was asked for."""
    return f"{budget:,g} samples" if found.unit == "samples" else in_words(found.unit, budget)


def _line(row: Row, found: Comparison) -> tuple[str, ...]:
    return (
        row.strategy,
        budget_words(found, row.budget),
        _percent(row.accuracy, row.accuracy_interval),
        "–" if row.tokens is None else f"{row.tokens:,.1f}",
        f"{row.verification:,.1f}",
        f"{row.samples:.2f}",
        "" if row.difference is None or row.difference_interval is None else _points(row),
        "" if row.p is None else f"{row.p:.2g}" if row.p >= 0.001 else "<.001",
    )


def _baseline(one: Baseline) -> tuple[str, ...]:
    tokens = "–" if one.tokens is None else f"{one.tokens:,.1f}"
    accuracy = _percent(one.accuracy, one.accuracy_interval)
    return one.name, "", accuracy, tokens, "", f"{one.samples}", "", ""


def _reached(one: Reached, in_tokens: bool) -> str:
    what = "tokens" if in_tokens else "samples"
    if one.cost is None:
        tail = f" (but on {max(0.01, one.reached):.0%} of resampled question sets)" if one.reached else ""
        return f"to reach {one.accuracy:.1%}, {one.strategy}: not reached{tail}"
    low, high = (f"{end:,.1f}" if end is not None else "not reached" for end in one.cost_interval)
    most = "at most " if one.at_most else ""
    return f"to reach {one.accuracy:.1%}, {one.strategy}: {most}{one.cost:,.1f} {what} a question ({low} to {high})"


def _footer(found: Comparison) -> str:
    graded = f"{found.questions:,} questions" + (f" ({found.left_out:,} cannot be graded)" if found.left_out else "")
    orders = f", {found.repeats} orders of the samples" if found.repeats > 1 else ""
    tests = {row.test for row in found.rows} - {None}
    test = {"mcnemar": "McNemar's exact test", "sign flips": "paired sign flips"}
    by = f"; p by {' and '.join(test[name] for name in sorted(filter(None, tests)))}, not corrected" if tests else ""
    each = "; budgets are means a question" if found.each else ""
    return f"{graded}{orders}; ± half a 95% interval over questions; tokens, checks and samples a question{each}{by}"


def _percent(value: float, interval: Interval) -> str:
    return f"{100 * value:.2f} ± {50 * (interval[1] - interval[0]):.2f}"


def _points(row: Row) -> str:
    assert row.difference is not None and row.difference_interval is not None, "of a row that has one"  # noqa: PT018
    low, high = row.difference_interval
    return f"{100 * row.difference:+.2f} ± {50 * (high - low):.2f}"


def _plot(axis: Any, name: str, rows: Sequence[Row]) -> None:
    rows = sorted(rows, key=lambda row: row.cost)
    axis.errorbar(
        [row.cost for row in rows],
        [100 * row.accuracy for row in rows],
        xerr=reach([(row.cost, row.cost_interval) for row in rows], 1.0),
        yerr=reach([(row.accuracy, row.accuracy_interval) for row in rows], 100.0),
        marker="o",
        markersize=4,
        linewidth=1.2,
        elinewidth=0.6,
        capsize=2,
        label=name,
    )


def _standards(axis: Any, points: Sequence[Baseline], name: str, in_tokens: bool, **style: Any) -> None:
    placed = [(one.tokens if in_tokens else float(one.samples), one.accuracy) for one in points]
    placed = [(cost, accuracy) for cost, accuracy in placed if cost is not None]
    if placed:
        costs, heights = zip(*placed, strict=True)
        axis.plot(
            costs, [100 * height for height in heights], markersize=4, linewidth=0.8, color="0.35", label=name, **style
        )
