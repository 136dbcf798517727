"""Later verifiers' checks of a run, shard by shard and part by part: the loop behind ``pipeline.verifying``.

Cheap checks run in this process, the others in verifier actors, as in a run. A check that costs has its worst case
reserved first. A part that another command was faster to write is dropped, and its shard looked at anew: its checks are
then paid twice, and recorded once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from budgets.ledger import Ledger
from pipeline.cluster import Cluster
from pipeline.errors import StoreError
from pipeline.records import Item, Reviewed, Sample, Shard, Verdict, from_row
from pipeline.reviews import Reviews
from pipeline.run import Run
from pipeline.source import read_shard
from pipeline.spec import JobSpec
from pipeline.verifier_kinds import is_cheap, worst_tokens

PART = 1_024
"""Verdicts a file holds at least, but a shard's last: few objects, and what a killed command repeats is bounded."""
PAID_PART = 64
"""The same where checks cost: what a killed command has to pay again."""

Key = tuple[str, str, int]
"""A sample: item id, prompt key, sample index."""
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Work:
    """A run, its job with later verifiers for its own, and one ``Reviews`` for each of these.

    ``ledger``: tokens that checks may cost; needed where one costs.
    """

    run: Run
    spec: JobSpec
    shards: Sequence[Shard]
    reviews: Sequence[Reviews]
    ledger: Ledger | None
    tell: Tell


@dataclass(frozen=True, slots=True)
class _Question:
    """Samples of one question that a verifier has not seen yet, and ``seen`` with what it said of them."""

    item: Item
    samples: tuple[Sample, ...]
    seen: tuple[Sample, ...]


def check(work: Work) -> None:
    """Check what no verifier has seen yet, shard by shard.

    Raises:
        StoreError: the directory cannot be read or written, or the dataset lacks an answered question.
    """
    from actors.judge import RuleJudge

    if all(is_cheap(section) for section in work.spec.verifiers):
        asyncio.run(_check_all(work, RuleJudge(work.spec)))
        return
    cluster = Cluster()
    try:
        cluster.connect(work.spec.cluster.verifiers)
        from actors.verifier import VerifierPool, start_verifiers

        asyncio.run(_check_all(work, VerifierPool(work.spec, start_verifiers(work.spec))))
    finally:
        cluster.close()


async def _check_all(work: Work, judge: _Judge) -> None:
    try:
        for shard in work.shards:
            if shard.shard_id in work.run.commits:
                await _check_shard(work, judge, shard)
    finally:
        await judge.close()


async def _check_shard(work: Work, judge: _Judge, shard: Shard) -> None:
    samples: dict[str, list[Sample]] = {}
    for batch in work.run.shard_samples(shard.shard_id).to_batches():
        for sample in (from_row(Sample, row) for row in batch.to_pylist()):
            if not sample.aborted:
                samples.setdefault(sample.item_id, []).append(sample)
    rows = read_shard(work.spec.dataset, shard)
    items = {row.item_id: row for row in rows if isinstance(row, Item) and row.item_id in samples}
    missing = sorted(samples.keys() - items.keys())
    if missing:
        raise StoreError(f"{work.run.store.url}: the dataset has no row for the answered question {missing[0]!r}")
    for at, review in enumerate(work.reviews):
        written, finished = 0, False
        while not finished:
            done, finished = await _check_with(work, judge, at, shard.shard_id, items, samples)
            written += done
        work.tell(f"shard {shard.shard_id + 1} of {len(work.shards)}: {written:,} new verdicts by {review.verifier}")


async def _check_with(
    work: Work, judge: _Judge, at: int, shard_id: int, items: dict[str, Item], samples: dict[str, list[Sample]]
) -> _Progress:
    """Check what is not on record yet, part by part. Not ``finished``: another command wrote a part; begin anew."""
    review, worst = work.reviews[at], worst_tokens(work.spec.verifiers[at])
    parts = review.parts(shard_id)
    number, written = len(parts), 0
    known = {_key(row): _verdict(row) for row in review.read(parts)}
    queue = deque(_unchecked(items, samples, known))
    while queue:
        group = _next_group(queue, work.ledger if worst else None, worst, review.verifier)
        if not group:
            work.tell(f"{review.verifier}: the budget pays for no further check")
            break
        said = await asyncio.gather(*(judge.check(one.item, one.samples, review.verifier, one.seen) for one in group))
        rows = [
            _row(sample, verdict)
            for one, verdicts in zip(group, said, strict=True)
            for sample, verdict in zip(one.samples, verdicts, strict=True)
        ]
        if worst and work.ledger is not None:
            for one, verdicts in zip(group, said, strict=True):
                work.ledger.settle(_grant(review.verifier, one), sum(verdict.tokens for verdict in verdicts))
        if not review.append(shard_id, number, rows):
            return _Progress(written, finished=False)
        number, written = number + 1, written + len(rows)
    return _Progress(written, finished=True)


def _unchecked(
    items: dict[str, Item], samples: dict[str, list[Sample]], known: dict[Key, Verdict]
) -> Iterator[_Question]:
    for item_id, drawn in samples.items():
        missing = tuple(sample for sample in drawn if _key(sample) not in known)
        seen = tuple(replace(s, verdicts=(known[_key(s)],)) for s in drawn if _key(s) in known)
        if missing:
            yield _Question(items[item_id], missing, seen)


def _next_group(queue: deque[_Question], ledger: Ledger | None, worst: int, verifier: str) -> list[_Question]:
    """Questions for one part, their worst case reserved; empty where the budget pays for no check of any."""
    group: list[_Question] = []
    size = PAID_PART if worst else PART
    while queue and sum(len(one.samples) for one in group) < size:
        one = queue[0]
        if ledger is not None:
            affordable = ledger.free // worst
            if not affordable:
                break
            rest = one.samples[affordable:]
            one = replace(one, samples=one.samples[:affordable])
            ledger.grant(_grant(verifier, one), verifier, worst * len(one.samples))
            if rest:
                # Checked in the next part, which has what this one did not use.
                queue[0] = replace(queue[0], samples=rest)
                group.append(one)
                break
        queue.popleft()
        group.append(one)
    return group


def _grant(verifier: str, question: _Question) -> str:
    first = question.samples[0]
    return f"{verifier}/{first.item_id}/{first.prompt_key}/{first.sample_index}"


def _key(record: Sample | Reviewed) -> Key:
    return record.item_id, record.prompt_key, record.sample_index


def _row(sample: Sample, verdict: Verdict) -> Reviewed:
    return Reviewed(*_key(sample), verdict.verifier, verdict.score, verdict.error, verdict.tokens, verdict.detail)


def _verdict(row: Reviewed) -> Verdict:
    return Verdict(row.verifier, row.score, row.error, row.tokens, row.detail)


class _Progress(NamedTuple):
    written: int
    finished: bool


class _Judge(Protocol):
    """What is needed of ``actors.judge``."""

    async def check(
        self, item: Item, samples: Sequence[Sample], verifier: str, seen: Sequence[Sample] = ()
    ) -> list[Verdict]: ...

    async def close(self) -> None: ...
