"""Buffers samples, verdicts and decisions on their way to the journal, and writes them in few, durable files; attempts
beside them.

A sample counts as paid once its file is written. Writes happen in a thread, one at a time; a failed write is kept and
raised to the worker, which must not go on: a sample that is not in the journal would be drawn again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pipeline.records import Decided, Judged, Sample
from pipeline.store import Store

T = TypeVar("T")

# One file a shard and flush: half a second keeps files few and what a SIGKILL can lose small.
FLUSH_SECONDS = 0.5


class Logbook:
    """The journal of one worker life. ``flush`` returns when everything added before it is durable."""

    def __init__(self, store: Store, life: str) -> None:
        self._store, self._life = store, life
        self._buffer: dict[int, list[Sample]] = defaultdict(list)
        self._judged: dict[int, list[Judged]] = defaultdict(list)
        self._decided: dict[int, list[Decided]] = defaultdict(list)
        self._seq = 0
        self._lock = asyncio.Lock()

    def add(self, shard_id: int, sample: Sample) -> None:
        """Queue a sample for the next flush."""
        self._buffer[shard_id].append(sample)

    def note(self, shard_id: int, record: Judged | Decided) -> None:
        """Queue a verdict or a decision for the next flush."""
        if isinstance(record, Judged):
            self._judged[shard_id].append(record)
        else:
            self._decided[shard_id].append(record)

    async def flush(self) -> None:
        """Write everything queued. Raises StoreError; what was not written stays queued."""
        async with self._lock:
            # A decision before the samples that were drawn by it, a sample before what was said of it.
            await self._write(self._decided, self._store.note)
            await self._write(self._buffer, self._store.journal)
            await self._write(self._judged, self._store.note)

    async def _write(self, buffer: dict[int, list[T]], write: Callable[[int, Any, str, int], None]) -> None:
        for shard_id in list(buffer):
            records = buffer[shard_id]
            count = len(records)
            if count:
                await asyncio.to_thread(write, shard_id, records[:count], self._life, self._next_seq())
            # More may have been added to the same list while the thread was writing.
            del records[:count]
            if not records:
                del buffer[shard_id]

    async def record_attempts(self, shard_id: int, item_ids: Sequence[str]) -> None:
        """Make it durable that these questions are about to be in flight in this life."""
        await asyncio.to_thread(self._store.record_attempts, shard_id, item_ids, self._life, self._next_seq())

    async def release_attempts(self, shard_id: int, item_ids: Sequence[str]) -> None:
        """Make durable what these questions were paid, and that they are in flight here no more."""
        await self.flush()
        await asyncio.to_thread(self._store.release_attempts, shard_id, item_ids, self._life, self._next_seq())

    def _next_seq(self) -> int:
        """The next file number of this life."""
        self._seq += 1
        return self._seq
