"""The market of a run as its directory proves it: there is no second source of truth.

Spent is what the journal holds, repetitions included. Committed shards bring their parked demand back, read from the
answers whose next sample the market refused, so that a resume or a larger budget goes on with the best of them. What an
older rule answered is to be answered again: its shards count as not committed, what they cost as spent.
"""

from __future__ import annotations

import math

import pyarrow.compute as pc

from budgets.cost import TOKENS, CostModel
from budgets.curve import DemandCurve
from budgets.market import Market
from budgets.messages import Commit
from pipeline.records import Shard
from pipeline.run import Run
from pipeline.spending import generation_cost, spent_by_life, verification_cost
from pipeline.store import Store

_COLUMNS = ["next_value", "samples", "tokens"]


def restore_market(store: Store, budget: int, shards: list[Shard], cost: CostModel = TOKENS) -> Market:
    """A market that goes on where journal and commits leave off; ``budget`` in units of ``cost``. Raises StoreError."""
    run = Run(store, store.run_info(), store.commits())
    spent = sum(spent_by_life(store, cost).values())
    committed = {}
    for shard_id, commit in run.commits.items():
        if commit.rule != run.info.rule:
            continue
        generation = generation_cost(store, commit, cost)
        finished = generation + verification_cost(store, commit, cost)
        parked = _parked(run, shard_id, generation / max(1, commit.tokens))
        committed[shard_id] = Commit(commit.generation, finished, parked, commit.lessons)
    return Market(budget, spent, {shard.shard_id: shard.items for shard in shards}, committed)


def _parked(run: Run, shard_id: int, rate: float) -> tuple[tuple[float, int], ...]:
    """Demand of a committed shard's refused questions: value of the next sample, expected cost.

    ``rate``: units a token of this shard cost on average.
    """
    wanting = (pc.field("next_value") > 0) | (pc.field("samples") == 0)
    rows = run.shard_answers(shard_id).to_table(columns=_COLUMNS, filter=wanting, use_threads=False)
    curve = DemandCurve()
    for row in rows.to_pylist():
        # A question that never got a sample has no price of its own: the minimum comes before everything.
        value = row["next_value"] if row["samples"] else math.inf
        curve.add(value, max(1, math.ceil(rate * row["tokens"] / max(1, row["samples"]))))
    return curve.to_pairs()
