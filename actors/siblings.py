"""Samples that other runs of the same questions have drawn already: served in place of generating them again.

Promises: what is served was asked in exactly the same way (item, prompt key, sample index; the key covers prompt, model
and sampling) and came to its own end, so it is what an engine might have said here; it is charged to this run at what
it cost there. A prompt that was charged with what is served is not charged again with what is generated after it: an
engine that never saw it computes it, yet a run of its own would have found it cached, and equal budgets would not buy
equally much. Of several runs that hold a sample the first named serves it. Owns nothing: one shard is read at a time,
from journals, and whoever asked keeps it for as long as the shard is open.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

from actors.engines.base import Completion
from pipeline.records import Sample
from pipeline.store import Store

Shared = dict[str, dict[tuple[str, int], Sample]]
"""item_id → (prompt_key, sample_index) → sample, its ``origin`` set to the run that generated it."""

_ENDED_BY_ITSELF = ("cut",)
"""Cut at a bar that is part of what was asked, and so of the prompt key: whoever asks again is cut there too."""


class Siblings:
    """The runs at these URLs, which have this run's plan (``pipeline.reuse``)."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._stores = [Store.open(url) for url in urls]
        self._ids: dict[str, str] = {}

    def read(self, shard_id: int, only: Collection[str] | None = None) -> Shared:
        """What they sampled of one shard. ``only``: item ids. Blocks. Raises StoreError."""
        found: Shared = defaultdict(dict)
        for store in self._stores:
            if store.url not in self._ids:
                self._ids[store.url] = store.run_info().run_id
            for sample in store.read_journal(shard_id):
                whole = not sample.aborted or sample.finish_reason in _ENDED_BY_ITSELF
                if whole and (only is None or sample.item_id in only):
                    origin = sample.origin or self._ids[store.url]
                    place = (sample.prompt_key, sample.sample_index)
                    found[sample.item_id].setdefault(place, replace(sample, origin=origin))
        return dict(found)


def charged_prompt(served: Sequence[Sample], generated: bool) -> int:
    """Prompt tokens that a further sample would have found cached, had all of ``served`` been generated here; at least
    one, all of one way to ask.

    What the warmest of them found. Where none was warmer than another there is but one, or all were computed side by
    side: then the whole prompt, which is more than a cache gives by less than one of its blocks; and only until one
    was ``generated`` here, after which the engine has the prompt and tells for itself.
    """
    cached = [sample.cached_prompt_tokens for sample in served]
    if max(cached) > min(cached):
        return max(cached)
    return 0 if generated else served[0].prompt_tokens


def completion_of(sample: Sample, prefix: str) -> Completion:
    """A sample as the engine gave it: ``prefix``, which its completion began with, taken off again."""
    return Completion(
        text=sample.text.removeprefix(prefix),
        prompt_tokens=sample.prompt_tokens,
        cached_prompt_tokens=sample.cached_prompt_tokens,
        completion_tokens=sample.completion_tokens,
        finish_reason=sample.finish_reason,
        mean_logprob=sample.mean_logprob,
        min_group_confidence=sample.min_group_confidence,
    )
