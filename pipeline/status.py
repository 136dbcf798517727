"""Where a run stands, read from its directory alone: the same for a run that is live, dead or finished.

Promises: ``items`` = sum of ``stop_reasons`` once a run is finished; tokens count every attempt, lost ones included, as
the ledger does. Reads the plan, the commits and the answers' columns it needs, batch by batch, and the journals of
shards without a commit, one at a time. Writes nothing; loads neither ray, torch nor vllm, nor pyarrow before a call.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.budget_spec import BudgetUse, budget_use, cost_model, tokens_in
from pipeline.errors import StoreError
from pipeline.records import StopReason

if TYPE_CHECKING:
    from pipeline.run import Run
    from pipeline.store import Store

# Two-sided 95% quantile of the normal distribution.
_Z95 = 1.959963984540054

_COLUMNS = ["stop_reason", "correct", "samples", "tokens", "verifier_tokens", "flipped", "audit_correct"]


@dataclass(frozen=True)
class AuditStatus:
    """Settled questions that ran on to their cap, how many changed their answer, and the rate with its Wilson 95%.

    ``accuracy_early`` and ``accuracy_full`` are those of the early stop and of the cap over the ``judged`` of them that
    have a usable reference; None without such.
    """

    audited: int
    flipped: int
    rate: float
    interval: tuple[float, float]
    judged: int = 0
    accuracy_early: float | None = None
    accuracy_full: float | None = None


@dataclass(frozen=True)
class RunStatus:
    """Counts of one run. Tokens are those computed: uncached prompt + completion + verification.

    ``budget`` is what they cost, in the unit the budget is written in; ``tokens_budget`` is None where that is dollars
    and classes of tokens differ in price, since no number of tokens is the budget then.

    ``state``: "planned" (nothing paid yet), "running or interrupted", or "finished". The directory cannot tell a live
    run from a dead one, so neither is claimed. ``stop_reasons`` has every ``StopReason``; ``failed`` counts dead
    letters. ``accuracy`` is ``correct`` / ``judged``, over answered rows with a usable reference, with its Wilson 95%
    interval; None without such rows. ``mean_tokens_per_sample`` is over answered rows; ``max_samples`` is the
    strategy's. ``audit`` is None where no audit came to its end. ``seconds`` is the wall-clock time of the command that
    reports, where there is one.
    """

    run: str
    run_id: str
    state: str
    items: int
    answered: int
    dead_lettered: int
    samples: int
    tokens_spent: int
    tokens_budget: int | None
    stop_reasons: dict[str, int] = field(default_factory=dict)
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    correct: int = 0
    judged: int = 0
    mean_tokens_per_sample: float | None = None
    max_samples: int | None = None
    audit: AuditStatus | None = None
    shards: int = 0
    shards_committed: int = 0
    seconds: float | None = None
    budget: BudgetUse | None = None

    def as_json(self) -> dict[str, Any]:
        """Exactly the fields above, with JSON's types only."""
        raw = dataclasses.asdict(self)
        if self.accuracy_interval is not None:
            raw["accuracy_interval"] = list(self.accuracy_interval)
        if self.audit is not None:
            raw["audit"]["interval"] = list(self.audit.interval)
        return raw


@dataclass
class _Tally:
    """What the answered rows add up to."""

    reasons: Counter[str] = field(default_factory=Counter)
    correct: int = 0
    judged: int = 0
    samples: int = 0
    tokens: int = 0
    audited: int = 0
    flipped: int = 0
    audit_judged: int = 0
    right_early: int = 0
    right_full: int = 0

    def audit(self) -> AuditStatus | None:
        if not self.audited:
            return None
        interval = wilson_interval(self.flipped, self.audited)
        rate, judged = self.flipped / self.audited, self.audit_judged
        if not judged:
            return AuditStatus(self.audited, self.flipped, rate, interval)
        early, full = self.right_early / judged, self.right_full / judged
        return AuditStatus(self.audited, self.flipped, rate, interval, judged, early, full)


def status_of(url: str) -> RunStatus:
    """The status of the run at ``url``.

    Samples of a shard that is open again after a commit (a top-up under way) count once it is committed anew; their
    tokens count at once. While a run is selected by another rule, a shard's answers are the older rule's until it is
    committed under the new one; ``shards_committed`` counts the new ones.

    Raises:
        UsageError: there is no run.
        StoreError: the directory cannot be read, or is corrupt.
    """
    from pipeline.run import open_run
    from pipeline.spending import total

    run = open_run(url)
    store = run.store
    plan = store.read_plan() if store.planned() else []
    commits = run.commits
    tally = _tally(run)
    dead = sum(commit.rows["dead_letters"] for commit in commits.values())
    samples = sum(commit.rows["samples"] for commit in commits.values())
    samples += _journalled(store, [shard.shard_id for shard in plan if shard.shard_id not in commits])
    usage = total(store.journal_usage())
    spent, budget = usage.billed, store.budget_spec()
    reasons = {reason.value: tally.reasons[reason.value] for reason in StopReason}
    reasons[StopReason.FAILED.value] += dead
    return RunStatus(
        run=store.url,
        run_id=run.info.run_id,
        state=_state(store, bool(commits) or spent > 0),
        items=sum(shard.items for shard in plan),
        answered=sum(commit.rows["answers"] for commit in commits.values()),
        dead_lettered=dead,
        samples=samples,
        tokens_spent=spent,
        tokens_budget=tokens_in(budget),
        stop_reasons=reasons,
        accuracy=tally.correct / tally.judged if tally.judged else None,
        accuracy_interval=wilson_interval(tally.correct, tally.judged) if tally.judged else None,
        correct=tally.correct,
        judged=tally.judged,
        mean_tokens_per_sample=tally.tokens / tally.samples if tally.samples else None,
        max_samples=_max_samples(run.info.job),
        audit=tally.audit(),
        shards=len(plan),
        shards_committed=sum(commit.rule == run.info.rule for commit in commits.values()),
        budget=budget_use(budget, cost_model(budget).of_usage(usage)),
    )


def wilson_interval(successes: int, trials: int, z: float = _Z95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927, JASA 22): sound for few trials and near 0 and 1.

    Raises:
        ValueError: not 0 ≤ successes ≤ trials with trials ≥ 1.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials is no proportion")
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # Rounding may carry the ends past 0, 1 or the share itself by an ulp.
    return max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach))


def _tally(run: Run) -> _Tally:
    import pyarrow as pa
    import pyarrow.compute as pc

    tally = _Tally()
    try:
        for batch in run.answers().to_batches(columns=_COLUMNS):
            for pair in pc.value_counts(batch["stop_reason"]).to_pylist():
                tally.reasons[pair["values"]] += pair["counts"]
            tally.judged += len(batch) - batch["correct"].null_count
            tally.audited += len(batch) - batch["flipped"].null_count
            tally.flipped += pc.sum(batch["flipped"]).as_py() or 0
            both = pc.and_(pc.is_valid(batch["correct"]), pc.is_valid(batch["audit_correct"]))
            tally.audit_judged += pc.sum(both).as_py() or 0
            tally.right_early += pc.sum(batch["correct"].filter(both)).as_py() or 0
            tally.right_full += pc.sum(batch["audit_correct"].filter(both)).as_py() or 0
            tally.correct += pc.sum(batch["correct"]).as_py() or 0
            tally.samples += pc.sum(batch["samples"]).as_py() or 0
            tally.tokens += (pc.sum(batch["tokens"]).as_py() or 0) + (pc.sum(batch["verifier_tokens"]).as_py() or 0)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"cannot read the answers of {run.store.url}: {error}; restore them, or begin a new run"
        ) from error
    return tally


def _journalled(store: Store, shard_ids: list[int]) -> int:
    """Samples of shards that have no commit yet, each once however often it was paid for."""
    return sum(len(store.read_journal(shard_id)) for shard_id in shard_ids)


def _state(store: Store, begun: bool) -> str:
    if store.finished() is not None:
        return "finished"
    return "running or interrupted" if begun else "planned"


def _max_samples(job: dict[str, Any]) -> int:
    strategy = job["strategy"]
    # Greedy names no maximum: it draws one. A cascade's is that of its stages together.
    parts = strategy.get("stages") or [strategy]
    return sum(int(part.get("max_samples", 1)) for part in parts)
