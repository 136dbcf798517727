"""What a run has spent, as its directory proves it: the journal, where samples and the verdicts that cost are kept.

Promises: every token counts once, lost attempts included, and the sum is the same for the allocator that starts again,
for ``status`` and for ``plan``. What a process that died had under way is known to nobody. Reads token columns only.
"""

from __future__ import annotations

from collections.abc import Mapping

from budgets.cost import TOKENS, CostModel, Usage
from pipeline.commits import Commit
from pipeline.journal import TOKEN_COLUMNS, VERDICT_COLUMNS, decode, usage_of
from pipeline.store import Store


def spent_by_life(store: Store, cost: CostModel = TOKENS) -> dict[str, int]:
    """Worker life → what it journalled, in units of the budget. Raises StoreError."""
    return {life: cost.of_usage(usage) for life, usage in store.journal_usage().items()}


def total(usage: Mapping[str, Usage]) -> Usage:
    """All lives together."""
    return sum(usage.values(), Usage())


def generation_cost(store: Store, commit: Commit, cost: CostModel) -> int:
    """Units the samples of a committed shard cost to generate. Opens no file where all tokens cost the same."""
    if cost.uniform:
        return commit.tokens * cost.completion
    usage = _read(store, commit)
    return cost.of_usage(Usage(usage.prompt, usage.cached, usage.completion))


def verification_cost(store: Store, commit: Commit, cost: CostModel) -> int:
    """Units the samples of a committed shard cost to verify. Opens no file where that was nothing."""
    return cost.of_usage(Usage(verifier=_read(store, commit).verifier)) if commit.verifier_tokens else 0


def _read(store: Store, commit: Commit) -> Usage:
    path = commit.files.get("samples")
    return Usage() if path is None else usage_of(decode(store.files, path, [*TOKEN_COLUMNS, *VERDICT_COLUMNS]))
