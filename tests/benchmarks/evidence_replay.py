"""Recorded samples run through the shipped tally, rules and bids, in memory; for ``tests.benchmarks.evidence``.

One process, no market: the queue here is the exact greedy one, which a market of many shards approaches.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.engines.confidence import min_group_confidence
from budgets.evidence import Evidence
from budgets.stopping import make_rule
from budgets.value import ExpectedTokens, voting_value
from pipeline.records import Sample

DATA = Path(__file__).resolve().parents[2] / "../shared/data/smollm2_arithmetic_360x40.parquet"

Orders = list[list[list[int]]]
"""Repeat, question, place: which sample of the question comes there."""


@dataclass(frozen=True)
class Question:
    """One recorded question: its samples, which of them are right, and the fold it is in."""

    item_id: str
    gold: str
    samples: list[Sample]
    fold: int


@dataclass(frozen=True)
class Course:
    """One question's course in one order of its samples: entry n is after n samples. ``turn`` breaks ties of bids."""

    turn: float
    right: list[bool]
    p_lead: list[float]
    tokens: list[int]
    stops: dict[str, int]


def load() -> list[Question]:
    import pyarrow.parquet as pq

    questions: dict[str, Question] = {}
    for row in pq.read_table(DATA).to_pylist():
        item_id = row["question_id"]
        fold = hashlib.sha256(item_id.encode()).digest()[0] & 1
        question = questions.setdefault(item_id, Question(item_id, row["gold"], [], fold))
        logprobs = row["token_logprobs"]
        question.samples.append(
            Sample(
                item_id,
                row["sample_index"],
                prompt_key="",
                text="",
                answer=row["answer"],
                completion_tokens=row["completion_tokens"],
                mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
                min_group_confidence=min_group_confidence(row["token_confidence"]),
            )
        )
    return list(questions.values())


def orders(questions: Sequence[Question], repeats: int, seed: int) -> Orders:
    """For each repeat and question an order of its samples, from the seed, the repeat and the question's id alone."""

    def order(repeat: int, question: Question) -> list[int]:
        digest = hashlib.sha256(f"{seed}/{repeat}/{question.item_id}".encode()).digest()
        return [int(i) for i in np.random.default_rng(list(digest)).permutation(len(question.samples))]

    return [[order(repeat, question) for question in questions] for repeat in range(repeats)]


def courses(
    questions: Sequence[Question], shuffles: Orders, evidence: Evidence, rules: Sequence[str] = ()
) -> list[list[Course]]:
    """The tally's course for each repeat and question, and where each rule would have stopped."""
    made = {rule: make_rule(rule) for rule in rules}

    def course(question: Question, order: list[int]) -> Course:
        tally, stops = evidence.tally(), dict[str, int]()
        right, p_lead, tokens = [False], [0.5], [0]
        for n, i in enumerate(order, start=1):
            tally.add_sample(question.samples[i])
            right.append(tally.leader == question.gold)
            p_lead.append(tally.p_lead)
            tokens.append(question.samples[i].completion_tokens)
            for name, rule in made.items():
                if name not in stops and rule.should_stop(tally):
                    stops[name] = n
        # Tied bids in the order of the file would favour whole families of questions.
        turn = random.Random(f"{question.item_id}/{order}").random()
        return Course(turn, right, p_lead, tokens, {name: stops.get(name, len(order)) for name in made})

    return [[course(q, order) for q, order in zip(questions, each, strict=True)] for each in shuffles]


def queue(paths: Sequence[Course], alpha: float, budgets: Sequence[float]) -> list[list[int]]:
    """Samples each question has when the queue has drawn each of ``budgets`` (mean samples, rising) in all."""
    drawn = [1] * len(paths)
    heap = [(-voting_value(path.p_lead[1], 1, 1.0, alpha=alpha), path.turn, i) for i, path in enumerate(paths)]
    heapq.heapify(heap)
    spent, snapshots = len(paths), []
    for budget in budgets:
        while spent < budget * len(paths) and heap:
            i = heap[0][2]
            drawn[i] += 1
            spent += 1
            n = drawn[i]
            if n < len(paths[i].right) - 1:
                heapq.heapreplace(heap, (-voting_value(paths[i].p_lead[n], n, 1.0, alpha=alpha), paths[i].turn, i))
            else:
                heapq.heappop(heap)
        snapshots.append(list(drawn))
    return snapshots


def token_curve(paths: Sequence[Course], alpha: float, grid: Sequence[float]) -> list[float]:
    """Accuracy (points) of the queue once it has spent each of ``grid`` (mean tokens a question, rising).

    Bids are per token: each question expects of its next sample what its own and all others' cost so far.
    """
    whole = ExpectedTokens()
    own = [ExpectedTokens() for _ in paths]
    spent = right = 0
    drawn = [0] * len(paths)
    heap = [(-math.inf, path.turn, i) for i, path in enumerate(paths)]
    heapq.heapify(heap)
    accuracy: list[float] = []
    at = 0
    while heap:
        i = heap[0][2]
        n = drawn[i] + 1
        cost = paths[i].tokens[n]
        while at < len(grid) and spent + cost > grid[at] * len(paths):
            accuracy.append(100.0 * right / len(paths))
            at += 1
        if at == len(grid):
            return accuracy
        spent, drawn[i] = spent + cost, n
        right += paths[i].right[n] - paths[i].right[n - 1]
        whole.add(cost)
        own[i].add(cost)
        if n < len(paths[i].right) - 1:
            expected = own[i].mean(whole.mean(float(cost) or 1.0))
            heapq.heapreplace(heap, (-voting_value(paths[i].p_lead[n], n, expected, alpha=alpha), paths[i].turn, i))
        else:
            heapq.heappop(heap)
    return accuracy + [100.0 * right / len(paths)] * (len(grid) - at)


def fixed_scores(runs: list[list[Course]], n: int) -> np.ndarray:
    """Right or wrong at n samples each: repeats × questions."""
    return np.array([[path.right[n] for path in paths] for paths in runs], dtype=float)


def queue_scores(runs: list[list[Course]], alpha: float, budgets: Sequence[float]) -> np.ndarray:
    """Right or wrong at the end of each budget: budgets × repeats × questions."""
    taken = [queue(paths, alpha, budgets) for paths in runs]
    return np.array(
        [
            [
                [path.right[n] for path, n in zip(paths, each[b], strict=True)]
                for paths, each in zip(runs, taken, strict=True)
            ]
            for b in range(len(budgets))
        ],
        dtype=float,
    )


def of_fold(questions: Sequence[Question], runs: list[list[Course]], fold: int) -> list[list[Course]]:
    return [[path for q, path in zip(questions, paths, strict=True) if q.fold == fold] for paths in runs]
