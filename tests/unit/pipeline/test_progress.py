"""What a person sees of a run: plain lines in logs, one redrawn block on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from pipeline.budget_spec import BudgetUse
from pipeline.progress import PLAIN_SECONDS, Progress, Reporter, duration, in_words, plain_line

SOLVING = Progress(
    phase="solving",
    items=300,
    finished=173,
    samples=1922,
    tokens_spent=31_204,
    tokens_budget=60_000,
    tokens_per_second=571.4,
    price=0.00123,
    seconds_left=51.2,
    shards_committed=1,
    shards=2,
    workers=1,
)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_plain_line_says_everything() -> None:
    assert plain_line(SOLVING) == (
        "solving: 173/300 questions finished, 1,922 samples, 31,204/60,000 tokens (52%), 571 tokens/s, price 0.0012, "
        "about 51 s left"
    )
    assert plain_line(replace(SOLVING, seconds_left=None, note="1 worker restarts")).endswith(
        "0.0012, 1 worker restarts"
    )


def test_no_pace_is_claimed_before_or_after_solving() -> None:
    for phase in ("planning", "starting", "finishing"):
        line = plain_line(replace(SOLVING, phase=phase))
        assert line.startswith(f"{phase}: ")
        assert "left" not in line
        assert "tokens/s" not in line


def test_a_budget_of_zero_is_no_division() -> None:
    assert "0/0 tokens (0%)" in plain_line(replace(SOLVING, tokens_spent=0, tokens_budget=0))


@pytest.mark.parametrize(
    ("unit", "amount", "said"),
    [
        ("tokens", 5_000, "5,000 tokens"),
        ("dollars", 1.25, "$1.25"),
        ("dollars", 0.0, "$0.00"),
        ("dollars", 0.000_17, "$0.00017"),
        ("gpu_hours", 0.5, "0.5 GPU-hours"),
        ("flops", 1.2e18, "1.2e+18 FLOPs"),
    ],
)
def test_amounts_in_words(unit: str, amount: float, said: str) -> None:
    assert in_words(unit, amount) == said


def test_a_budget_in_dollars_shows_no_tokens_that_nobody_knows() -> None:
    priced = replace(
        SOLVING, tokens_spent=None, tokens_budget=None, tokens_per_second=None, budget=BudgetUse("dollars", 5.0, 1.25)
    )
    assert plain_line(priced) == (
        "solving: 173/300 questions finished, 1,922 samples, $1.25 of $5.00 (25%), price 0.0012, about 51 s left"
    )
    assert "budget $5.00" in plain_line(replace(priced, phase="starting"))
    stream = Terminal()
    with Reporter(stream, Clock()) as reporter:
        reporter(priced)
    assert "$1.25 of $5.00" in stream.getvalue()


def test_plain_lines_are_few_and_phase_changes_are_never_missed() -> None:
    stream, clock = io.StringIO(), Clock()
    with Reporter(stream, clock) as reporter:
        reporter(replace(SOLVING, phase="planning"))
        reporter(replace(SOLVING, phase="starting"))
        reporter(SOLVING)
        for finished in range(180, 190):
            clock.now += PLAIN_SECONDS / 10 - 1e-6
            reporter(replace(SOLVING, finished=finished))
        clock.now += PLAIN_SECONDS
        reporter(replace(SOLVING, finished=200))
        reporter(replace(SOLVING, phase="finishing", finished=300))
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "planning: reading the dataset",
        "starting: 300 questions",
        "solving: 173/300 questions finished",
        "solving: 200/300 questions finished",
        "finishing: 300/300 questions finished",
    ]
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_a_block_that_is_redrawn() -> None:
    stream = Terminal()
    with Reporter(stream, Clock()) as reporter:
        reporter(replace(SOLVING, phase="planning"))
        reporter(SOLVING)
        reporter(replace(SOLVING, finished=299))
    shown = stream.getvalue()
    assert "\x1b[" in shown
    assert "173/300 finished" in shown
    assert "299/300 finished" in shown
    assert "31,204/60,000 tokens" in shown
    assert "1 worker" in shown
    assert shown.index("\x1b[?25l") < shown.rindex("\x1b[?25h"), "the cursor comes back"


def test_closing_twice_or_unused_is_fine() -> None:
    reporter = Reporter(Terminal(), Clock())
    reporter.close()
    reporter(SOLVING)
    reporter.close()
    reporter.close()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (-3, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7625, "2 h 07 min")],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
