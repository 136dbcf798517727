"""Recorded samples, read question by question: what replay, the replay engine and the allocator's benchmarks draw from.

Promises: a question's samples are read together, whatever order the file has; columns stay Arrow or numpy until a
sample is drawn; the order in which a question's samples are drawn depends on seed, repeat, its id and their indices
alone; a recording that contradicts itself (one sample twice, two references for one question, no answer at all) is
refused before anything is replayed. Memory holds a few row groups and some bytes a question. May not know a budget.

Questions are numbered in file order. A file whose questions are scattered is rewritten once, by question, into a
temporary directory (``close`` removes it): replay reads shards more than once, so sorting once is cheaper than seeking.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.recording_parts import ANSWERS, FilePart, Part, Wanted, checked_columns, find_parts
from pipeline.recording_scan import Index, scan
from pipeline.records import Verdict
from pipeline.spec import AnswerSpec

_CACHED_PARTS = 2
"""Shards are read in order, so the row group in hand and the one before are all that is read again."""
_BUCKET_ROWS = 500_000
"""Rows sorted in memory at once while a scattered recording is rewritten."""


class Span(NamedTuple):
    """Questions ``[start, stop)`` of a recording."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Questions ``[first, first + len(item_ids))``; question i has rows ``starts[i]:starts[i + 1]`` of every array.

    ``answer`` holds places in ``answers``, -1 where nothing parsed. ``tokens``, ``mean_logprob`` (nats a token),
    ``confidence`` (DeepConf's lowest group), ``score`` in [0, 1], ``text``, ``token_confidence`` (an Arrow array of
    lists, a number a token) and ``verdicts`` (by the verifier's name) are None where they were not recorded, or not
    wanted; single values that are missing are NaN.
    """

    first: int
    item_ids: list[str]
    references: list[str | None]
    starts: NDArray[np.int64]
    sample_index: NDArray[np.int64]
    answer: NDArray[np.int32]
    answers: list[str]
    tokens: NDArray[np.int64] | None
    mean_logprob: NDArray[np.float64] | None
    confidence: NDArray[np.float64] | None
    score: NDArray[np.float64] | None
    text: list[str | None] | None
    finish_reason: list[str | None] | None
    token_confidence: Any = None
    verdicts: list[dict[str, Verdict]] | None = None

    def draw_order(self, seed: int, repeat: int) -> NDArray[np.int64]:
        """Rows in the order they are drawn, question by question: a permutation within each question.

        A sample's place is decided by a hash of seed, repeat, item id and its own index: neither other questions nor
        the order of the file nor, in part, a missing sample changes it.
        """
        lengths = np.diff(self.starts)
        words = [f"{seed}/{repeat}/{item_id}".encode() for item_id in self.item_ids]
        digests = b"".join(hashlib.blake2b(word, digest_size=8).digest() for word in words)
        keys = _mixed(np.repeat(np.frombuffer(digests, dtype="<u8"), lengths) ^ _mixed(self.sample_index.astype("<u8")))
        order: NDArray[np.int64] = np.lexsort((keys, np.repeat(np.arange(len(lengths)), lengths)))
        return order

    def row_of(self, question: int, sample_index: int, backwards: bool = False) -> int | None:
        """The row of a question's sample, or None where it was not recorded. ``backwards``: counted from the last."""
        low, high = int(self.starts[question]), int(self.starts[question + 1])
        own = self.sample_index[low:high]
        found = np.flatnonzero(own == (own.max() - sample_index if backwards else sample_index))
        return low + int(found[0]) if len(found) else None


class Recording:
    """An open recording. Close it, or use it in a ``with`` block."""

    def __init__(self, name: str, parts: tuple[Part, ...], index: Index, answer: AnswerSpec | None, owned: ExitStack):
        self.name = name
        self.answer = answer
        """How the run that was recorded compares answers; None: a plain file."""
        self._parts, self._index, self._owned = parts, index, owned
        self._tables: OrderedDict[int, Any] = OrderedDict()

    @classmethod
    def open(cls, source: str, columns: Mapping[str, str] | None = None, wanted: Wanted = ANSWERS) -> Recording:
        """Look through a Parquet file, a glob or a run's directory once.

        ``columns``: role → column (``recording_parts.ROLES``) where names differ; ``wanted``: what else is read.

        Raises:
            SourceError: it cannot be read, a column is missing, or it contradicts itself.
            UsageError: the source or a role is unknown.
        """
        found = find_parts(source, checked_columns(columns or {}), wanted)
        with ExitStack() as owned:
            parts = found.parts
            index = scan(source, parts)
            if not index.grouped:
                folder = owned.enter_context(tempfile.TemporaryDirectory(prefix="ponder-replay-"))
                parts = _regrouped(parts, Path(folder))
                index = scan(source, parts)
            return cls(source, parts, index, found.answer, owned.pop_all())

    @property
    def questions(self) -> int:
        """Questions that have samples."""
        return len(self._index.starts) - 1

    @property
    def samples(self) -> int:
        """Samples of all questions."""
        return int(self._index.starts[-1])

    @property
    def pools(self) -> NDArray[np.int64]:
        """Samples recorded of each question."""
        return np.diff(self._index.starts)

    @property
    def largest(self) -> int | None:
        """Completion tokens of the longest sample; None where they were not recorded."""
        return self._index.largest

    @property
    def has_reference(self) -> bool:
        """True where any question has one."""
        return self._index.references

    def spans(self, shards: int) -> list[Span]:
        """The questions cut into ``shards`` (>= 1) runs of like size, fewer where there are fewer questions."""
        count = min(shards, self.questions)
        cuts = [self.questions * i // count for i in range(count + 1)]
        return [Span(low, high) for low, high in itertools.pairwise(cuts)]

    def place_of(self, item_id: str) -> int | None:
        """The one question that may have this id, or None; whoever reads it compares the ids."""
        return self._index.place_of(item_id)

    def read(self, span: Span) -> Columns:
        """The samples of some questions. Raises SourceError where the file went away or changed."""
        rows = self._index.starts[span.start : span.stop + 1]
        return _columns(span.start, self._rows(int(rows[0]), int(rows[-1])), rows - rows[0])

    def close(self) -> None:
        """Forget what was read, and remove the temporary copy where there is one. Idempotent."""
        self._tables.clear()
        self._owned.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, low: int, high: int) -> Any:
        import pyarrow as pa

        edges = self._index.part_starts
        pieces = []
        for part in range(int(np.searchsorted(edges, low, side="right")) - 1, len(self._parts)):
            start, stop = int(edges[part]), int(edges[part + 1])
            if start >= high:
                break
            table = self._table(part, stop - start)
            pieces.append(table.slice(max(0, low - start), min(high, stop) - max(low, start)))
        return pa.concat_tables(pieces).combine_chunks()

    def _table(self, part: int, rows: int) -> Any:
        if part in self._tables:
            self._tables.move_to_end(part)
            return self._tables[part]
        table = self._parts[part].read()
        if table.num_rows != rows:
            raise SourceError(f"{self.name} changed while it was replayed; let nothing write to it, and start again")
        self._tables[part] = table
        while len(self._tables) > _CACHED_PARTS:
            self._tables.popitem(last=False)
        return table


def _columns(first: int, table: Any, starts: NDArray[np.int64]) -> Columns:
    names = set(table.column_names)
    answer, answers = _coded(table["answer"])
    references: list[str | None] = [None] * (len(starts) - 1)
    if "reference" in names:
        coded, words = _coded(table["reference"])
        # A question has one reference, or none: rows that leave it out are -1.
        references = [words[code] if code >= 0 else None for code in np.maximum.reduceat(coded, starts[:-1]).tolist()]

    def numbers(name: str, kind: type) -> Any:
        return table[name].to_numpy().astype(kind, copy=False) if name in names else None

    return Columns(
        first=first,
        item_ids=table["item_id"].take(starts[:-1]).to_pylist(),
        references=references,
        starts=starts,
        sample_index=numbers("sample_index", np.int64),
        answer=answer,
        answers=answers,
        tokens=numbers("completion_tokens", np.int64),
        mean_logprob=numbers("mean_logprob", np.float64),
        confidence=numbers("min_group_confidence", np.float64),
        score=numbers("score", np.float64),
        text=table["text"].to_pylist() if "text" in names else None,
        finish_reason=table["finish_reason"].to_pylist() if "finish_reason" in names else None,
        token_confidence=table["token_confidence"].combine_chunks() if "token_confidence" in names else None,
        verdicts=[_by_verifier(said) for said in table["verdicts"].to_pylist()] if "verdicts" in names else None,
    )


def _by_verifier(said: list[dict[str, Any]] | None) -> dict[str, Verdict]:
    # What a verifier said when it was given something is another check's.
    said = [one for one in said or () if one and one.get("given") is None]
    verdicts = (Verdict(one["verifier"], one["score"], one["error"], one["tokens"] or 0) for one in said)
    return {verdict.verifier: verdict for verdict in verdicts}


def _coded(column: Any) -> tuple[NDArray[np.int32], list[str]]:
    coded = column.combine_chunks().dictionary_encode()
    return coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), coded.dictionary.to_pylist()


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): neighbouring keys come out unrelated."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _regrouped(parts: tuple[Part, ...], folder: Path) -> tuple[Part, ...]:
    """The same samples written question by question: spread over buckets by a hash of the id, each sorted by itself."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    count = -(-sum(part.rows for part in parts) // _BUCKET_ROWS)
    paths = [folder / f"{bucket:05d}.parquet" for bucket in range(count)]
    schema = None
    with ExitStack() as stack:
        writers: list[Any] = []
        for part in parts:
            table = part.read()
            if schema is None:
                schema = table.schema
                writers = [stack.enter_context(pq.ParquetWriter(path, schema)) for path in paths]
            elif set(schema.names) != set(table.column_names):
                odd = sorted(set(schema.names) ^ set(table.column_names))
                raise SourceError(f"the files differ in {', '.join(odd)}: give all of them the same columns")
            ids = table["item_id"].combine_chunks().dictionary_encode()
            buckets = pa.array([zlib.crc32(word.encode()) % count for word in ids.dictionary.to_pylist()], pa.int64())
            of_row = buckets.take(ids.indices)
            for bucket, writer in enumerate(writers):
                writer.write_table(table.select(schema.names).filter(pc.equal(of_row, bucket)))
    regrouped: list[Part] = []
    for path in paths:
        table = pq.read_table(path).sort_by([("item_id", "ascending"), ("sample_index", "ascending")])
        if table.num_rows:
            pq.write_table(table, path, row_group_size=table.num_rows)
            regrouped.append(FilePart(str(path), 0, table.num_rows, {name: name for name in table.column_names}))
    return tuple(regrouped)
