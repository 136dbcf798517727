"""What a run has spent, as its directory proves it: generation from the journal, verification from the commits.

Promises: every token counts once, lost attempts included, and the sum is the same for the allocator that starts again,
for ``status`` and for ``plan``. What a process that died had verified and not committed is known to nobody, and what an
earlier generation of a shard cost to verify is replaced by what its newest cost. Reads token columns only.
"""

from __future__ import annotations

from collections.abc import Mapping

from budgets.cost import CostModel, Usage
from pipeline.commits import Commit
from pipeline.journal import TOKEN_COLUMNS, VERDICT_COLUMNS, decode, in_parallel, usage_of
from pipeline.store import Store


def usage_by_life(store: Store, commits: Mapping[int, Commit]) -> dict[str, Usage]:
    """Worker life → tokens by class: what it journalled, and what its ``commits`` (the newest) cost to verify.

    Raises:
        StoreError: journal or committed samples cannot be read.
    """
    found = dict(store.journal_usage())
    verified = [commit for commit in commits.values() if commit.verifier_tokens]
    for commit, usage in zip(verified, in_parallel(lambda one: _read(store, one), verified), strict=True):
        found[commit.writer] = found.get(commit.writer, Usage()) + Usage(verifier=usage.verifier)
    return found


def spent_by_life(store: Store, commits: Mapping[int, Commit], cost: CostModel) -> dict[str, int]:
    """``usage_by_life`` in units of the budget."""
    return {life: cost.of_usage(usage) for life, usage in usage_by_life(store, commits).items()}


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
