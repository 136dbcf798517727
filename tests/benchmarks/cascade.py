"""A cascade against its own two models, over recorded samples; the larger model is SIMULATED.

    python -m tests.benchmarks.cascade [--json] [--repeats 20] [--seed 0] [--size 16]

There is one recorded model only (``../shared/data/smollm2_arithmetic_360x40.parquet``, 360 questions × 40 samples). One
sample of the *simulated large model* is the majority of ``--size`` of its samples, and costs the tokens of all of them:
a real trade of cost for accuracy, with two marks of a larger model missing. Its errors are the small model's (a real
one errs otherwise, so it would both mend and break more), and as many votes of the small model do as well at the same
cost, which the table shows. So this measures the cascade's decisions, not what any pair of models would gain.

The shipped strategy runs without a market. The small model's samples come from the first 20 of a reshuffled question,
the large one's from the last ``--size``: none is in both. Questions are split in two folds by a hash of their id:
thresholds are learnt on one (from nothing, question after question, audits included) and reported on the other with
what was learnt held fixed. *wronged*: questions kept by the small model that the large one answers otherwise;
it is what ``tolerance`` bounds. Intervals are 95%, from a bootstrap over questions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from budgets.experience import Experience, Lesson, Subject, total
from budgets.votes import Tally
from pipeline.records import Item, Sample
from strategies.base import Draw, Solution, Strategy
from strategies.cascade import Cascade, Stage
from strategies.self_consistency import SelfConsistency
from tests.benchmarks.evidence_replay import DATA, Question, load, orders
from tests.fake_session import FakeSession

SMALL_CAP = 4
POOL, OF_SMALL = 40, 20
LARGE = "large"
TOLERANCES = (0.05, 0.1, 0.2)
_WATCHED = 0.1
"""Of this one the run that learns is shown too."""
AUDIT = 0.2
"""Of 180 questions .05 would be two or three settled ones: too few to learn from."""
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Told:
    """One question answered: is it right, its cost, was the large model asked, was the small one believed wrongly."""

    right: bool
    tokens: int
    asked: bool
    wronged: bool


def simulated(question: Question, order: Sequence[int], size: int) -> Sample:
    """One sample of the simulated large model: the majority of ``size`` samples, at the tokens of all."""
    parts = [question.samples[i] for i in order[POOL - size :]]
    tally = Tally()
    for part in parts:
        tally.add(part.answer)
    tokens = sum(part.completion_tokens for part in parts)
    return Sample(question.item_id, 0, "", "", answer=tally.leader, completion_tokens=tokens, model=LARGE)


def solve(
    strategy: Strategy, question: Question, order: Sequence[int], size: int, known: Experience
) -> tuple[Told, Mapping[Subject, Lesson]]:
    """Run the strategy over one question's samples, and what it taught."""
    large = simulated(question, order, size)

    def drawn(draw: Draw, index: int) -> Sample | None:
        if draw.model == LARGE:
            return large if index == 0 else None
        return question.samples[order[index]] if index < OF_SMALL else None

    session = FakeSession(drawn, known=known, seed=int(question.item_id.encode().hex(), 16) + order[0])
    solving = strategy.solve(Item(question.item_id, prompt=""), session)
    try:
        solving.send(None)
    except StopIteration as end:
        found: Solution = end.value
    asked = any(sample.model == LARGE for sample in session.drawn)
    told = Told(
        right=found.answer == question.gold,
        tokens=sum(sample.completion_tokens for sample in session.drawn),
        asked=asked,
        wronged=not asked and found.answer != large.answer,
    )
    return told, session.taught


def cascade(learn: bool, tolerance: float = 0.05) -> Cascade:
    stages = (Stage(max_samples=SMALL_CAP), Stage(LARGE, max_samples=1))
    return Cascade(stages, learn_threshold=learn, audit_fraction=AUDIT, tolerance=tolerance)


Rows = dict[str, list[list[Told]]]
"""Name → repeat → question."""


def measure(questions: Sequence[Question], repeats: int, seed: int, size: int) -> Rows:
    small, voted = SelfConsistency(max_samples=SMALL_CAP), SelfConsistency(max_samples=OF_SMALL)
    large = Cascade((Stage(LARGE, max_samples=1),))
    plain: dict[str, Strategy] = {
        f"small only, {SMALL_CAP} samples": small,
        f"small only, up to {OF_SMALL} samples": voted,
        "large only (simulated)": large,
        "cascade, confidence .95": cascade(learn=False),
    }
    rows: Rows = {name: [] for name in plain}
    for order in orders(questions, repeats, seed):
        pairs = list(zip(questions, order, strict=True))
        for name, strategy in plain.items():
            rows[name].append([solve(strategy, q, o, size, {})[0] for q, o in pairs])
        for tolerance in TOLERANCES:
            strategy = cascade(learn=True, tolerance=tolerance)
            lessons: dict[int, Experience] = {0: {}, 1: {}}
            learning: dict[str, Told] = {}
            for q, o in pairs:
                learning[q.item_id], taught = solve(strategy, q, o, size, lessons[q.fold])
                lessons[q.fold] = total([lessons[q.fold], taught])
            held = replace(strategy, audit_fraction=0.0)
            found = [solve(held, q, o, size, lessons[1 - q.fold])[0] for q, o in pairs]
            rows.setdefault(f"cascade, learnt elsewhere, tolerance {tolerance:g}", []).append(found)
            if tolerance == _WATCHED:
                while_learning = rows.setdefault(f"  the same while learning, audits {AUDIT:g}", [])
                while_learning.append([learning[q.item_id] for q in questions])
    return rows


def interval(each: np.ndarray, seed: int) -> list[float]:
    """95% of the mean of ``each``, one value a question."""
    rng = np.random.default_rng(seed)
    means = [each[rng.integers(0, len(each), len(each))].mean() for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return [round(float(low), 2), round(float(high), 2)]


def report(rows: Rows, seed: int) -> list[dict[str, Any]]:
    def over(name: str, value: str, scale: float = 1.0) -> np.ndarray:
        """The mean over repeats, a value a question."""
        return scale * np.array([[getattr(one, value) for one in each] for each in rows[name]], float).mean(axis=0)

    reference = "large only (simulated)"
    lines = []
    for name in rows:
        right, tokens = over(name, "right", 100.0), over(name, "tokens")
        gap = right - over(reference, "right", 100.0)
        lines.append(
            {
                "row": name,
                "accuracy": round(float(right.mean()), 2),
                "accuracy_interval": interval(right, seed),
                "behind_large": round(float(gap.mean()), 2),
                "behind_large_interval": interval(gap, seed),
                "tokens": round(float(tokens.mean()), 1),
                "tokens_interval": interval(tokens, seed),
                "asked_large": round(float(over(name, "asked", 100.0).mean()), 1),
                "wronged": round(float(over(name, "wronged", 100.0).mean()), 2),
            }
        )
    return lines


def show(lines: list[dict[str, Any]], size: int) -> None:
    print(f"large = majority of {size} samples of the small model at the cost of {size}: SIMULATED, see the module\n")
    head = (
        "",
        "accuracy % [95%]",
        "against large [95%]",
        "tokens a question [95%]",
        "asked large %",
        "wronged %",
    )
    table = [head]
    for line in lines:
        table.append(
            (
                line["row"],
                f"{line['accuracy']:.2f} {line['accuracy_interval']}",
                f"{line['behind_large']:+.2f} {line['behind_large_interval']}",
                f"{line['tokens']:.1f} {line['tokens_interval']}",
                f"{line['asked_large']:.1f}",
                f"{line['wronged']:.2f}",
            )
        )
    widths = [max(len(row[at]) for row in table) for at in range(len(head))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=16, help="samples whose majority is one of the large model")
    given = parser.parse_args()
    if not DATA.exists():
        print(f"no recorded samples at {DATA}: see ../shared/data/README.md", file=sys.stderr)
        return 2
    if not 1 <= given.size <= POOL - OF_SMALL:
        parser.error(f"--size must lie in 1..{POOL - OF_SMALL}: the small model's samples are the other {OF_SMALL}")
    lines = report(measure(load(), given.repeats, given.seed, given.size), given.seed)
    if given.json:
        print(json.dumps({"size": given.size, "repeats": given.repeats, "seed": given.seed, "rows": lines}))
    else:
        show(lines, given.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
