"""How replays read: an aligned table, and a picture of accuracy against cost.

Pure but for the file it draws. matplotlib is loaded only to draw, with a backend that needs no display.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.replay import Result
    from pipeline.replay_intervals import Interval

FORMATS = (".png", ".svg", ".pdf")
_INCHES = (11.0, 5.0)
_DPI = 150
_COLOURS = 10
_LEGEND_COLUMNS = 3

Cost = Callable[["Result"], "tuple[float, Interval] | None"]


def table(results: Sequence[Result]) -> str:
    """Results as aligned columns: means with half the width of their 95% intervals, shares in percent."""
    lines = [("rule", "budget", "samples", "tokens", "accuracy %", "agreement %", "stopped because")]
    for result in results:
        lines.append(
            (
                result.rule,
                _budget(result),
                _number(result.mean_samples, result.mean_samples_interval, 1.0),
                _number(result.mean_tokens, result.mean_tokens_interval, 1.0),
                _number(result.accuracy, result.accuracy_interval, 100.0),
                _number(result.agreement, result.agreement_interval, 100.0),
                _reasons(result),
            )
        )
    rows = [aligned(lines, left={0, len(lines[0]) - 1})]
    first = results[0]
    pool = f"{first.pool_min}" if first.pool_min == first.pool_max else f"{first.pool_min}–{first.pool_max}"
    rows.append(
        f"{first.questions:,} questions, {pool} samples recorded a question, {first.repeats} repeats, evidence "
        f"{first.evidence}; ± half a 95% interval over questions; agreement is with the vote of the whole pool"
    )
    return "\n".join(rows)


def aligned(lines: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Cells in columns, to the right but for the columns ``left``."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def drawable(path: str) -> None:
    """Raise UsageError where ``draw`` could not write ``path``: said before anything is replayed."""
    if not path.lower().endswith(FORMATS):
        raise UsageError(f"--plot {path!r}: a picture ends in {', '.join(FORMATS)}")
    parent = Path(path).resolve().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"--plot {path!r}: the folder {parent} is not there or cannot be written; create it first")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib; install it: pip install matplotlib") from None


def draw(results: Sequence[Result], path: str) -> None:
    """Draw the cost–accuracy frontier: rules as points, each market as a line over its budgets, with 95% intervals.

    One panel over samples and, where tokens were recorded, one over tokens. Without references agreement is drawn in
    accuracy's place.

    Raises:
        UsageError: see ``drawable``, or the file cannot be written.
    """
    drawable(path)
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels: list[tuple[str, Cost]] = [("samples a question", _samples)]
    if all(result.mean_tokens is not None for result in results):
        panels.append(("completion tokens a question", _tokens))
    graded = all(result.accuracy is not None for result in results)
    figure, axes = pyplot.subplots(1, len(panels), figsize=_INCHES, sharey=True, squeeze=False)
    lines = _series(results)
    palette = mpl.colormaps["tab10" if len(lines) <= _COLOURS else "tab20"]
    for axis, (label, cost) in zip(axes[0], panels, strict=True):
        for place, (name, series) in enumerate(lines.items()):
            _plot(axis, name, series, cost, graded, palette(place % palette.N))
        axis.set_xlabel(f"{label} (mean)")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy (%)" if graded else "agreement with the whole pool (%)")
    figure.suptitle(f"{results[0].questions:,} questions, {results[0].repeats} repeats, 95% intervals over questions")
    # Below the panels: inside, it would lie over the points it names.
    handles, names = axes[0][0].get_legend_handles_labels()
    rows = -(-len(names) // _LEGEND_COLUMNS)
    figure.legend(handles, names, loc="lower center", ncols=_LEGEND_COLUMNS, fontsize="small", frameon=False)
    figure.tight_layout(rect=(0, 0.045 * rows, 1, 1))
    try:
        figure.savefig(path, dpi=_DPI)
    except OSError as error:
        raise UsageError(f"--plot {path!r}: cannot be written: {error.strerror or error}") from None
    finally:
        pyplot.close(figure)


def _series(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results that belong on one line: a market's budgets; a rule is alone. With several kinds of evidence, by kind."""
    listed = list(results)
    several = len({result.evidence for result in listed}) > 1
    found: dict[str, list[Result]] = {}
    for result in listed:
        name = result.rule if result.budget_tokens is None else f"{result.rule}, token budget"
        found.setdefault(f"{name} ({result.evidence})" if several else name, []).append(result)
    return found


def _plot(axis: Any, name: str, series: list[Result], cost: Cost, graded: bool, colour: Any) -> None:
    points = []
    for result in series:
        place = cost(result)
        height = result.accuracy if graded else result.agreement
        spread = result.accuracy_interval if graded else result.agreement_interval
        if place is not None and height is not None and spread is not None:
            points.append((*place, height, spread))
    points.sort(key=lambda point: point[0])
    axis.errorbar(
        [x for x, _, _, _ in points],
        [100 * y for _, _, y, _ in points],
        xerr=reach([(x, ends) for x, ends, _, _ in points], 1),
        yerr=reach([(y, ends) for _, _, y, ends in points], 100),
        marker="o",
        markersize=4,
        linestyle="-" if len(points) > 1 else "none",
        linewidth=1.2,
        elinewidth=0.6,
        capsize=2,
        color=colour,
        # The mean is what is compared; intervals are there to be seen through.
        ecolor=(*colour[:3], 0.4),
        label=name,
    )


def reach(points: Sequence[tuple[float, Interval]], scale: float) -> list[list[float]]:
    """Intervals as matplotlib's error bars take them: below and above each point."""
    return [
        [scale * max(0.0, middle - low) for middle, (low, _) in points],
        [scale * max(0.0, high - middle) for middle, (_, high) in points],
    ]


def _samples(result: Result) -> tuple[float, Interval] | None:
    return result.mean_samples, result.mean_samples_interval


def _tokens(result: Result) -> tuple[float, Interval] | None:
    if result.mean_tokens is None or result.mean_tokens_interval is None:
        return None
    return result.mean_tokens, result.mean_tokens_interval


def _budget(result: Result) -> str:
    if result.budget_samples is not None:
        return f"{result.budget_samples:g} samples"
    return "" if result.budget_tokens is None else f"{result.budget_tokens:g} tokens"


def _number(value: float | None, interval: Interval | None, scale: float) -> str:
    if value is None or interval is None:
        return "–"
    return f"{scale * value:.2f} ± {scale * (interval[1] - interval[0]) / 2:.2f}"


def _reasons(result: Result) -> str:
    shares = sorted(((count, reason) for reason, count in result.stop_reasons.items() if count), reverse=True)
    return ", ".join(f"{reason} {100 * count / result.questions:.0f}%" for count, reason in shares)
