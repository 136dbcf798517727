"""What a run tells while it works, and how a person sees it.

Promises: on a terminal one live block that is redrawn in place; elsewhere plain lines, one a phase change and otherwise
at most one every few seconds, so that logs stay short. Owns the stream it is given while it is open, never closes it,
and starts no thread: it draws when it is told something. May not read the run directory; ``status`` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from pipeline.budget_spec import BudgetUse

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

# Often enough to see that it lives, seldom enough for a log file of a run of days.
PLAIN_SECONDS = 5.0

_BAR_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. ``phase`` is planning, starting, solving or finishing.

    ``price`` is the market's, in expected gain per unit of the budget; ``seconds_left`` is None while nothing is known.
    Tokens are None where classes of tokens differ in price: then only ``status`` can tell them, from the journal.
    ``budget`` is in the unit its user wrote; None: tokens. ``warnings``: what is legal, yet likely not meant; each is
    shown once.
    """

    phase: str
    items: int
    finished: int
    samples: int
    tokens_spent: int | None
    tokens_budget: int | None
    tokens_per_second: float | None
    price: float
    seconds_left: float | None
    shards_committed: int
    shards: int
    workers: int
    note: str = ""
    budget: BudgetUse | None = None
    warnings: tuple[str, ...] = ()


class Reporter:
    """Shows ``Progress`` on ``stream``; call it with each one, and use it as a context manager.

    ``live`` chooses the redrawn block; by default it is what ``stream.isatty()`` says. ``clock`` gives seconds.
    """

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, *, live: bool | None = None
    ) -> None:
        self._stream, self._clock = stream, clock
        self._live_wanted = stream.isatty() if live is None else live
        self._live: Live | None = None
        self._phase = ""
        self._written_at = 0.0
        self._warned: set[str] = set()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, progress: Progress) -> None:
        """Show ``progress``, now or not at all."""
        if self._live_wanted:
            self._draw(progress)
        else:
            self._write(progress)
        for warning in progress.warnings:
            self._warn(warning)

    def close(self) -> None:
        """Leave the terminal as it was, the last block standing. Idempotent."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _warn(self, warning: str) -> None:
        if warning in self._warned:
            return
        self._warned.add(warning)
        if self._live is not None:
            from rich.text import Text

            # Above the block, where it stays.
            self._live.console.print(Text(f"warning: {warning}"))
        else:
            self._stream.write(f"warning: {warning}\n")
            self._stream.flush()

    def _write(self, progress: Progress) -> None:
        now = self._clock()
        if progress.phase == self._phase and now - self._written_at < PLAIN_SECONDS:
            return
        self._phase, self._written_at = progress.phase, now
        self._stream.write(plain_line(progress) + "\n")
        # A pipe is buffered in blocks: unflushed, a log would lag by minutes.
        self._stream.flush()

    def _draw(self, progress: Progress) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            # Standard output is left alone: it carries results.
            self._live = Live(
                console=Console(file=self._stream, force_terminal=True, highlight=False),
                auto_refresh=False,
                redirect_stdout=False,
            )
            self._live.start()
        self._live.update(_block(progress), refresh=True)


def plain_line(progress: Progress) -> str:
    """``progress`` as one line without control characters."""
    return f"{progress.phase}: {', '.join(_facts(progress))}"


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def in_words(unit: str, amount: float) -> str:
    """An amount of a budget: ``5,000 tokens``, ``$1.25``, ``0.5 GPU-hours`` or ``1.2e+18 FLOPs``."""
    if unit == "tokens":
        return f"{amount:,.0f} tokens"
    if unit == "dollars":
        # Small runs cost fractions of a cent, which must not read as nothing.
        return f"${amount:,.2f}" if amount == 0 or amount >= 1 else f"${amount:.2g}"
    return f"{amount:,.4g} GPU-hours" if unit == "gpu_hours" else f"{amount:.3g} FLOPs"


def use_in_words(use: BudgetUse) -> str:
    """How much of a budget is spent."""
    share = use.spent / use.total if use.total else 0.0
    return f"{in_words(use.unit, use.spent)} of {in_words(use.unit, use.total)} ({share:.0%})"


def _facts(progress: Progress) -> list[str]:
    if progress.phase == "planning":
        return ["reading the dataset"]
    if progress.phase == "starting":
        facts = [f"{progress.items:,} questions", "loading the model", _whole(progress)]
    else:
        facts = [
            f"{progress.finished:,}/{progress.items:,} questions finished",
            f"{progress.samples:,} samples",
            _tokens(progress),
            *_pace(progress),
        ]
    return [*facts, progress.note] if progress.note else facts


def _whole(progress: Progress) -> str:
    if progress.budget is not None:
        return f"budget {in_words(progress.budget.unit, progress.budget.total)}"
    return f"budget {progress.tokens_budget or 0:,} tokens"


def _tokens(progress: Progress) -> str:
    if progress.budget is not None and progress.budget.unit != "tokens":
        return use_in_words(progress.budget)
    if progress.tokens_spent is None or progress.tokens_budget is None:
        return "tokens not known yet"
    share = progress.tokens_spent / progress.tokens_budget if progress.tokens_budget else 0.0
    return f"{progress.tokens_spent:,}/{progress.tokens_budget:,} tokens ({share:.0%})"


def _pace(progress: Progress) -> list[str]:
    if progress.phase != "solving":
        return []
    facts = [] if progress.tokens_per_second is None else [f"{progress.tokens_per_second:,.0f} tokens/s"]
    facts.append(f"price {progress.price:.2g}")
    if progress.seconds_left is not None:
        facts.append(f"about {duration(progress.seconds_left)} left")
    return facts


def _block(progress: Progress) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if progress.phase in ("planning", "starting"):
        return Text(plain_line(progress))
    grid = Table.grid(padding=(0, 2))
    grid.add_row("questions", _bar(ProgressBar, progress.finished, progress.items), _count(progress))
    use = progress.budget or BudgetUse("tokens", progress.tokens_budget or 0, progress.tokens_spent or 0)
    grid.add_row("budget", _bar(ProgressBar, use.spent, use.total), _tokens(progress))
    shards = f"{progress.shards_committed:,}/{progress.shards:,} shards committed" if progress.shards else ""
    workers = f"{progress.workers:,} worker{'' if progress.workers == 1 else 's'}" if progress.workers else ""
    rest = [f"{progress.samples:,} samples", *_pace(progress), shards, workers, progress.note]
    block = Table.grid()
    block.add_row(grid)
    block.add_row(Text(" · ".join([progress.phase, *(fact for fact in rest if fact)])))
    return block


def _bar(kind: type, done: float, total: float) -> RenderableType:
    bar: RenderableType = kind(total=total or 1, completed=done, width=_BAR_WIDTH)
    return bar


def _count(progress: Progress) -> str:
    return f"{progress.finished:,}/{progress.items:,} finished"
