"""Can this job's verifiers work here, and judge these rows? Asked by ``run`` and ``plan`` before anything is spent.

Loads the verifiers' code, starts nothing. Where the cluster is elsewhere (``RAY_ADDRESS``) this machine says nothing of
it: the verifiers' actors are then the first to tell what they miss. What a row must hold is the same everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import PonderError, SpecError
from pipeline.records import Item, Shard
from pipeline.spec import JobSpec
from pipeline.verifier_kinds import label_of

SHOWN_ROWS = 3
"""Ids of rows a message lists."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """``rows`` of the ``of`` rows that can be asked are beyond a verifier (``field`` of the job); ``problem`` is that
    of the first, ``item_ids`` names a few."""

    field: str
    rows: int
    of: int
    problem: str
    item_ids: tuple[str, ...]

    def __str__(self) -> str:
        ids = ", ".join(self.item_ids)
        what = (
            f"can judge none of the {self.of:,}"
            if self.rows == self.of
            else f"cannot judge {self.rows:,} of {self.of:,}"
        )
        return f"{self.field}: {what} rows: {self.problem} (rows {ids})"


def refuse_unready(spec: JobSpec) -> None:
    """Make every verifier of the job once.

    Raises:
        SpecError: one cannot be made here: a sandbox this machine does not allow, a function that cannot be imported.
    """
    if not spec.verifiers or os.environ.get("RAY_ADDRESS"):
        return
    from verifiers.registry import make_verifier

    for section in spec.verifiers:
        make_verifier(section, spec.answer)


def refuse_unjudgeable(spec: JobSpec, shards: Sequence[Shard]) -> list[str]:
    """Look at every row with every verifier that can tell beforehand, in one pass over the dataset.

    Returns warnings: rows that a verifier cannot judge get an error verdict from it, and are answered all the same.

    Raises:
        SpecError: a verifier can judge no row at all, which is a mistake in the job or its data.
        SourceError: the dataset cannot be read.
    """
    if not spec.verifiers:
        return []
    from pipeline.source import read_shard
    from verifiers.registry import checks_rows

    if not any(map(checks_rows, spec.verifiers)):
        return []
    rows = (row for shard in shards for row in read_shard(spec.dataset, shard))
    found = unjudged(spec, (row for row in rows if isinstance(row, Item)))
    for one in found:
        if one.rows == one.of:
            raise SpecError(f"{one}; mend the data or the section, or leave the verifier out")
    return [f"{one}; they get an error verdict from it" for one in found]


def unjudged(spec: JobSpec, items: Iterable[Item]) -> list[Unjudged]:
    """The job's verifiers that cannot judge some of ``items``, in the job's order.

    Raises:
        SpecError: a verifier's look at a row failed; it is asked without one where the cluster is elsewhere.
    """
    from verifiers.registry import check_reference, checks_rows

    fields = {at: f"verifiers[{at}] ({label_of(one)})" for at, one in enumerate(spec.verifiers) if checks_rows(one)}
    bad: dict[int, list[str]] = {at: [] for at in fields}
    counts = dict.fromkeys(fields, 0)
    problems: dict[int, str] = {}
    total = 0
    for item in items:
        total += 1
        for at in list(fields):
            try:
                problem = check_reference(spec.verifiers[at], item, spec.answer)
            except PonderError:
                if not os.environ.get("RAY_ADDRESS"):
                    raise
                # What it takes to look at rows is on the cluster, not here.
                del fields[at]
                continue
            if problem is not None:
                counts[at] += 1
                problems.setdefault(at, problem)
                if len(bad[at]) < SHOWN_ROWS:
                    bad[at].append(item.item_id)
    return [Unjudged(fields[at], counts[at], total, problems[at], tuple(bad[at])) for at in fields if counts[at]]
