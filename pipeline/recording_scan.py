"""One pass over recorded samples: where each question begins, and whether the recording is sound.

Promises: reads each part once; holds one part, the question that runs over its end, and 24 bytes a question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.recording_parts import Part


@dataclass(frozen=True, slots=True)
class Index:
    """What the pass found. Question i has rows ``starts[i]:starts[i + 1]``, part p rows ``part_starts[p]`` onwards.

    ``grouped``: the rows of every question stand together; the other fields mean little where they do not.
    ``hashes``, sorted, and ``places`` find a question by its id. ``largest``: completion tokens of the longest sample.
    """

    starts: NDArray[np.int64]
    part_starts: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    places: NDArray[np.int64]
    grouped: bool
    largest: int | None
    references: bool

    def place_of(self, item_id: str) -> int | None:
        """The question whose id has the same 64-bit hash as this one; the caller compares the ids."""
        wanted = np.uint64(_hash(item_id))
        at = int(np.searchsorted(self.hashes, wanted))
        return int(self.places[at]) if at < len(self.hashes) and self.hashes[at] == wanted else None


class _Runs(NamedTuple):
    """Consecutive rows of one question each: where they start, and the end of all."""

    starts: NDArray[np.int64]
    ids: list[str]


def scan(name: str, parts: Iterable[Part]) -> Index:
    """Read every part once and check it.

    Raises:
        SourceError: no rows, no answer at all, a sample twice, or two references for one question.
    """
    part_starts, starts, hashes = [0], [np.zeros(1, dtype=np.int64)], []
    largest, answered, references = -1, False, False
    columns: set[str] | None = None
    for table in _whole_questions(parts, part_starts):
        found = set(table.column_names)
        if columns is not None and columns != found:
            odd = ", ".join(sorted(columns ^ found))
            raise SourceError(f"{name}: its files differ in {odd}: give all of them the same columns")
        columns = found
        runs = _runs(table)
        _check_indices(name, table, runs)
        if "reference" in found:
            references = _check_references(name, table, runs) or references
        answered = answered or table["answer"].null_count < table.num_rows
        if "completion_tokens" in found:
            largest = max(largest, int(table["completion_tokens"].to_numpy().max()))
        starts.append(runs.starts[1:] + starts[-1][-1])
        hashes.append(np.fromiter((_hash(item_id) for item_id in runs.ids), dtype=np.uint64, count=len(runs.ids)))
    if columns is None:
        raise SourceError(f"{name} holds no samples; record some first")
    if not answered:
        raise SourceError(
            f"{name}: no sample has an answer, all are null; extract the answers first, or name their column by "
            "--columns answer=…"
        )
    known = np.concatenate(hashes)
    places = np.argsort(known, kind="stable")
    known = known[places]
    return Index(
        starts=np.concatenate(starts),
        part_starts=np.array(part_starts, dtype=np.int64),
        hashes=known,
        places=places,
        grouped=not bool((known[1:] == known[:-1]).any()),
        largest=largest if largest >= 0 else None,
        references=references,
    )


def _whole_questions(parts: Iterable[Part], part_starts: list[int]) -> Iterator[Any]:
    """Tables that end where a question ends. Appends to ``part_starts`` where each part ends, in rows."""
    import pyarrow as pa

    rest: Any = None
    for part in parts:
        table = part.read()
        part_starts.append(part_starts[-1] + table.num_rows)
        if rest is not None:
            if set(rest.column_names) == set(table.column_names):
                table = pa.concat_tables([rest, table.select(rest.column_names)])
            else:
                yield rest  # the caller says that the files differ
        if table.num_rows == 0:
            continue
        cut = int(_runs(table).starts[-2])
        if cut:
            yield table.slice(0, cut).combine_chunks()
        rest = table.slice(cut).combine_chunks()
    if rest is not None:
        yield rest


def _runs(table: Any) -> _Runs:
    ids = table["item_id"].combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy(zero_copy_only=False)
    heads = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    words = ids.dictionary.to_pylist()
    return _Runs(np.append(heads, len(codes)).astype(np.int64), [words[code] for code in codes[heads].tolist()])


def _check_indices(name: str, table: Any, runs: _Runs) -> None:
    index = table["sample_index"].to_numpy()
    run = np.repeat(np.arange(len(runs.ids)), np.diff(runs.starts))
    order = np.lexsort((index, run))
    twice = np.flatnonzero((index[order][1:] == index[order][:-1]) & (run[order][1:] == run[order][:-1]))
    if len(twice):
        row = order[twice[0]]
        raise SourceError(
            f"{name}: sample_index {int(index[row])} of item {runs.ids[run[row]]!r} is there twice; number an item's "
            "samples 0, 1, 2, …, and keep samples of one prompt and one setting apart from others"
        )


def _check_references(name: str, table: Any, runs: _Runs) -> bool:
    """True where any row has a reference."""
    coded = table["reference"].combine_chunks().dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    most = np.maximum.reduceat(codes, runs.starts[:-1])
    least = np.minimum.reduceat(np.where(codes < 0, np.iinfo(codes.dtype).max, codes), runs.starts[:-1])
    odd = np.flatnonzero((most >= 0) & (most != least))
    if len(odd):
        words, run = coded.dictionary.to_pylist(), int(odd[0])
        raise SourceError(
            f"{name}: item {runs.ids[run]!r} has two references, {words[int(least[run])]!r} and "
            f"{words[int(most[run])]!r}; an item has one: mend the column, or the ids"
        )
    return bool((most >= 0).any())


def _hash(item_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8).digest(), "little")
