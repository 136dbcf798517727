"""What the runs of one comparison gave, question by question, and the baselines among their samples.

Promises: reads committed files only, a few columns of them, one shard at a time where they hold samples; a question
that a run could not answer counts as wrong there, if any run's answer to it could be graded.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.comparison import Floats, Measured, best_of, doublings
from pipeline.comparison_result import Contender, Standard
from pipeline.records import CUT, StopReason
from pipeline.replay_grading import Grader
from pipeline.run import Run, open_run
from pipeline.spec import AnswerSpec
from pipeline.spending import total

_ANSWER = ["item_id", "correct", "reference", "tokens", "verifier_tokens", "samples", "stop_reason"]
_SAMPLE = [
    "item_id", "prompt_key", "sample_index", "answer", "finish_reason", "prompt_tokens", "cached_prompt_tokens",
    "completion_tokens", "origin",
]  # fmt: skip

Own = tuple[str | None, float, str]
"""Strategy (None: the greedy baseline), budget, and the run's directory."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Contenders in order, and standards. ``charged``: tokens all budgets paid together; ``generated``: without what
    was taken from another of the runs."""

    contenders: list[Contender]
    standards: list[Standard]
    notes: list[str]
    charged: int
    generated: int


@dataclass
class _Table:
    """One run's answers by item id."""

    correct: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    verification: dict[str, float] = field(default_factory=dict)
    samples: dict[str, float] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def measured(self, ids: Sequence[str]) -> Measured:
        """As arrays, in the order of ``ids``."""

        def column(values: dict[str, float], missing: float) -> Floats:
            return np.array([values.get(item_id, missing) for item_id in ids])

        return Measured(
            column(self.correct, math.nan),
            column(self.tokens, 0.0),
            column(self.verification, 0.0),
            column(self.samples, 0.0),
        )


def outcomes_of(owns: Sequence[Own], answer: AnswerSpec, greedy: Collection[str]) -> Outcomes:
    """Read finished runs of one dataset. ``answer``: how they compare; ``greedy``: those at temperature 0.

    Raises:
        StoreError: a run cannot be read.
    """
    runs = [open_run(url) for _, _, url in owns]
    references: dict[str, str] = {}
    tables = [_table(run, references) for run in runs]
    graded = sorted(references)
    ids = sorted({item_id for table in tables for item_id in table.tokens})
    contenders = []
    standards = []
    for (strategy, budget, _), table in zip(owns, tables, strict=True):
        # A question that no run has a graded answer to is nobody's failure.
        table.correct = {item_id: value for item_id, value in table.correct.items() if item_id in references}
        measured = table.measured(ids)
        if strategy is None:
            standards.append(Standard("greedy", 1, measured.correct, measured.tokens))
        else:
            contenders.append(Contender(strategy, budget, measured, dict(table.reasons)))
    sampled = [run for run, (_, _, url) in zip(runs, owns, strict=True) if url not in greedy]
    found, note = _baselines(sampled, ids, graded, references, answer)
    charged = sum(total(run.store.journal_usage()).billed for run in runs)
    shared = sum(_taken(run) for run in runs)
    return Outcomes(contenders, [*standards, *found], [note] if note else [], charged, charged - shared)


def _table(run: Run, references: dict[str, str]) -> _Table:
    """One run's answers; ``references`` takes those of answers that were graded."""
    table = _Table()
    for batch in run.answers().to_batches(columns=_ANSWER):
        for row in batch.to_pylist():
            item_id = row["item_id"]
            table.correct[item_id] = math.nan if row["correct"] is None else float(row["correct"])
            table.tokens[item_id], table.verification[item_id] = row["tokens"], row["verifier_tokens"]
            table.samples[item_id] = row["samples"]
            table.reasons[row["stop_reason"]] += 1
            if row["correct"] is not None:
                references[item_id] = row["reference"]
    for batch in run.dead_letters().to_batches(columns=["item_id", "tokens", "samples"]):
        for row in batch.to_pylist():
            table.correct[row["item_id"]] = 0.0
            table.tokens[row["item_id"]], table.samples[row["item_id"]] = row["tokens"], row["samples"]
            table.reasons[StopReason.FAILED.value] += 1
    return table


def _taken(run: Run) -> int:
    """Tokens of the samples that another run generated."""
    taken = 0
    for batch in run.samples().to_batches(columns=_SAMPLE):
        for row in batch.to_pylist():
            taken += _billed(row) if row["origin"] else 0
    return taken


def _baselines(
    runs: Sequence[Run], ids: Sequence[str], graded: Sequence[str], references: dict[str, str], answer: AnswerSpec
) -> tuple[list[Standard], str | None]:
    """Random choice and oracle, over the samples with the lowest indices that every graded question has.

    How many a question got beyond those depended on what they said: an estimate over all of them would be biased.
    """
    wanted, right, tokens = set(graded), {}, {}
    grader = Grader(answer)
    try:
        for shard_id in sorted({shard_id for run in runs for shard_id in run.commits}):
            for item_id, rows in _plain(runs, shard_id).items():
                if item_id in wanted:
                    found = [grader.correct(row["answer"], references[item_id]) for row in rows]
                    right[item_id] = [float(value or 0.0) for value in found]
                    tokens[item_id] = [_billed(row) for row in rows]
    finally:
        grader.close()
    most = min((len(right.get(item_id, ())) for item_id in graded), default=0)
    if not most:
        return [], "random choice and oracle: not known, for a question has no sample"
    spent = {item_id: float(np.mean(own[:most])) for item_id, own in tokens.items()}
    scores = np.array([right[item_id][:most] for item_id in graded])
    a_sample = np.array([spent.get(item_id, 0.0) for item_id in ids])
    standards = []
    for k in doublings(most):
        by_item = dict(zip(graded, best_of(scores, k).tolist(), strict=True))
        correct = np.array([by_item.get(item_id, math.nan) for item_id in ids])
        standards.append(Standard("random choice" if k == 1 else f"oracle pass@{k}", k, correct, k * a_sample))
    return standards, f"random choice and oracle are over the first {most} samples, which every question has"


def _plain(runs: Sequence[Run], shard_id: int) -> dict[str, list[dict[str, Any]]]:
    """By item: whole samples of the way it was asked most often, over all runs, in the order of their indices."""
    ways: dict[str, dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        if shard_id in run.commits:
            for batch in run.shard_samples(shard_id).to_batches(columns=_SAMPLE):
                for row in batch.to_pylist():
                    if row["finish_reason"] not in CUT:
                        ways[row["item_id"]][row["prompt_key"]].setdefault(row["sample_index"], row)
    found = {}
    for item_id, by_key in ways.items():
        most = max(by_key.values(), key=len)
        found[item_id] = [most[index] for index in sorted(most)]
    return found


def _billed(row: dict[str, Any]) -> int:
    tokens: int = row["prompt_tokens"] - row["cached_prompt_tokens"] + row["completion_tokens"]
    return tokens
