"""May samples of another run stand for this one's? Asked before anything is spent. Reads run directories only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.fingerprint import MODEL_FIELDS, MODELS, changed_sections, diff
from pipeline.records import Shard
from pipeline.spec import JobSpec
from pipeline.store import Store

MAY_DIFFER = ("answer", "models", "sampling", "strategy", "verifiers")
"""Sections of the fingerprint that a sample does not depend on, or that its prompt key covers; of ``models`` those that
both jobs have must be the same."""


def refuse_unlike(spec: JobSpec, fingerprint: Mapping[str, str], shards: Sequence[Shard]) -> None:
    """Check every run in ``spec.reuse``; ``fingerprint`` is this run's, and ``shards`` where it has no plan yet.

    Raises:
        UsageError: one is no run, is this run, or is of other questions, models or shards. The message names them.
        StoreError: one cannot be read.
    """
    if not spec.reuse:
        return
    here = Store.open(spec.output)
    planned = here.read_plan() if here.planned() else list(shards)
    for url in spec.reuse:
        store = Store.open(url)
        if store.url == here.url:
            raise UsageError(f"reuse: {url} is this run's own output; leave it out")
        try:
            info = store.run_info()
        except UsageError as error:
            raise UsageError(f"reuse: {error}") from None
        changed = [name for name in changed_sections(info.fingerprint, fingerprint) if name not in MAY_DIFFER]
        job = spec.model_dump(mode="json")
        changes = [diff(info.job, job, changed)] if changed else other_models(info.job, job)
        if changes:
            listed = "\n".join(changes).replace("\n", "\n  ")
            raise UsageError(
                f"reuse: {url} sampled otherwise; name a run of the same questions and models:\n  {listed}"
            )
        if not store.planned() or not same_shards(store.read_plan(), planned):
            raise UsageError(f"reuse: {url} has other shards; set cluster.shard_size as there, and begin a new run")


def same_shards(one: Sequence[Shard], other: Sequence[Shard]) -> bool:
    """Whether two plans of the same data cut it alike, wherever its files are."""

    def rows(shards: Sequence[Shard]) -> list[tuple[int, list[tuple[int, int]]]]:
        return [(shard.items, [(part.start, part.stop) for part in shard.segments]) for shard in shards]

    return rows(one) == rows(other)


def other_models(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Lines on further models of one name that are not the same in two jobs (as JSON)."""
    known, own = theirs.get(MODELS) or {}, ours.get(MODELS) or {}
    return [
        f"{MODELS}.{model}.{field}: {known[model].get(field)!r} (run) → {own[model].get(field)!r} (job)"
        for model in sorted(known.keys() & own.keys())
        for field in MODEL_FIELDS
        if known[model].get(field) != own[model].get(field)
    ]
