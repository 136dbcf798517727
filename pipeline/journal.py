"""Samples as they land, what is said of them, which questions are in flight: what workers append to a run directory.

Promises: one durable object a call, never rewritten; a worker's life (``writer``) numbers its objects with ``seq``, so
that writers never meet. ``journal/<shard>/<writer>-<seq>.parquet`` holds samples, ``verdicts-…`` what was said of them
while their question was open, ``decided-…`` what was decided of it by what others had taught;
``attempts-<writer>-<seq>.json`` and ``released-<writer>-<seq>.json`` hold item ids. Reading the journal is the only way
the ledger, resumption and the count of attempts are rebuilt after a crash; what cannot be read is a ``StoreError``,
never skipped. Also owns how a record becomes Parquet bytes and back (``encode``, ``decode``).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from budgets.cost import ByClass, Usage
from pipeline.errors import StoreError
from pipeline.filesystem import Files
from pipeline.records import Decided, Judged, Sample, Verdict, columns_of, from_row, to_row

T = TypeVar("T")
K = TypeVar("K")
Said = dict[tuple[str, str | None], Verdict]
"""Verdicts on one sample by verifier and what it was given."""

READERS = 16
"""Objects read at once: enough to hide an object store's latency, few enough for a worker's memory."""

_WRITER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SAMPLES = re.compile(r"journal/\d+/(?!verdicts-|decided-)(?P<writer>.+)-\d+\.parquet")
_VERDICTS = re.compile(r"journal/\d+/verdicts-(?P<writer>.+)-\d+\.parquet")
_DECIDED = re.compile(r"journal/\d+/decided-(?P<writer>.+)-\d+\.parquet")
_MARKS = re.compile(r"journal/\d+/(?P<mark>attempts|released)-(?P<writer>.+)-(?P<seq>\d+)\.json")

TOKEN_COLUMNS = ["prompt_tokens", "cached_prompt_tokens", "completion_tokens", "model"]
"""Columns of ``Sample`` that generation is billed by; files from before there were several models have no last one."""
VERDICT_COLUMNS = ["verdicts.list.element.verifier", "verdicts.list.element.tokens"]
"""Columns of ``Sample`` that verification is billed by."""


class Journal:
    """The journal of one run. Thread-safe: it holds no state."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def append(self, shard_id: int, samples: Sequence[Sample], writer: str, seq: int) -> None:
        """Make ``samples`` durable. ``seq`` is never reused by this writer; without samples no object is written."""
        if samples:
            path = f"{_folder(shard_id)}/{checked(writer)}-{seq:06d}.parquet"
            self._create(path, encode(Sample, samples, path))

    def note(self, shard_id: int, records: Sequence[Judged] | Sequence[Decided], writer: str, seq: int) -> None:
        """Make verdicts, or decisions, durable. ``seq`` is of the counter that ``append`` numbers by."""
        if records:
            kind = "verdicts" if isinstance(records[0], Judged) else "decided"
            path = f"{_folder(shard_id)}/{kind}-{checked(writer)}-{seq:06d}.parquet"
            self._create(path, encode(type(records[0]), records, path))

    def decisions(self, shard_id: int) -> dict[str, dict[str, str]]:
        """Item id → name → what was decided. Where two lives decided, the first by writer stands."""
        paths = [path for path in self._files.list(_folder(shard_id)) if _DECIDED.fullmatch(path)]
        found: dict[str, dict[str, str]] = {}
        for table in in_parallel(self._read_table, sorted(paths)):
            for row in table.to_pylist():
                found.setdefault(row["item_id"], {}).setdefault(row["name"], row["choice"])
        return found

    def read(self, shard_id: int) -> list[Sample]:
        """The shard's samples, one a (item_id, sample_index, prompt_key, parent), ordered by these, with the verdicts
        that were journalled.

        Where one was paid for more than once, the first by (attempt, writer) stands: the same for every reader. Of
        verdicts of one verifier, given the same, the first that has a score stands.
        """
        listed = self._files.list(_folder(shard_id))
        paths = [path for path in listed if _SAMPLES.fullmatch(path)]
        found = [sample for part in in_parallel(self._read_samples, paths) for sample in part]
        said = self._read_verdicts([path for path in listed if _VERDICTS.fullmatch(path)])
        found = [_with_verdicts(sample, said) for sample in found] if said else found
        found.sort(key=lambda sample: (sample.attempt, sample.writer))
        first: dict[tuple[str, int, str, int], Sample] = {}
        for sample in found:
            first.setdefault(_identity(sample), sample)
        return [first[identity] for identity in sorted(first)]

    def usage(self) -> dict[str, Usage]:
        """Writer → tokens journalled by class, in all shards: generation and verification.

        What was paid for twice counts twice. Reads the token columns only.
        """
        listed = self._files.list("journal")
        totals: dict[str, Usage] = {}
        for pattern, read in ((_SAMPLES, self._usage_in), (_VERDICTS, self._verifying_in)):
            writers = {path: match["writer"] for path in listed if (match := pattern.fullmatch(path))}
            for writer, usage in zip(writers.values(), in_parallel(read, list(writers)), strict=True):
                totals[writer] = totals.get(writer, Usage()) + usage
        return totals

    def mark(self, mark: str, shard_id: int, item_ids: Sequence[str], writer: str, seq: int) -> None:
        """Record that these items are in flight (``attempts``) or no longer (``released``) in this writer's life.

        ``seq`` comes from one counter for both marks, since an item's latest mark is the one that holds.
        """
        if item_ids:
            path = f"{_folder(shard_id)}/{mark}-{checked(writer)}-{seq:06d}.json"
            self._create(path, json.dumps({"writer": writer, "items": list(item_ids)}).encode())

    def attempts(self, shard_id: int, dead_writers: AbstractSet[str] | None = None) -> dict[str, int]:
        """Item id → worker lives that ended with it in flight; items without such a life are left out.

        Only the lives of ``dead_writers`` count (None: all), since what a live worker has in flight is no death.
        """
        marks = []
        for path in self._files.list(_folder(shard_id)):
            match = _MARKS.fullmatch(path)
            if match and (dead_writers is None or match["writer"] in dead_writers):
                # At equal numbers the release is the later one: it can only follow its record.
                marks.append((match["writer"], int(match["seq"]), match["mark"] == "released", path))
        marks.sort()
        latest: dict[tuple[str, str], bool] = {}
        for (writer, _, released, _), items in zip(
            marks, in_parallel(self._read_items, [path for *_, path in marks]), strict=True
        ):
            latest.update({(item_id, writer): released for item_id in items})
        return dict(Counter(item_id for (item_id, _), released in latest.items() if not released))

    def _create(self, path: str, data: bytes) -> None:
        if not self._files.create(path, data):
            raise StoreError(
                f"{self._files.url}/{path} exists with other content: two worker lives share a writer name, or a "
                "sequence number was used twice; start each life under a fresh name"
            )

    def _read_samples(self, path: str) -> list[Sample]:
        return [from_row(Sample, row) for row in self._read_table(path).to_pylist()]

    def _read_table(self, path: str) -> Any:
        return decode(self._files, path)

    def _read_verdicts(self, paths: Sequence[str]) -> dict[tuple[str, str, int], Said]:
        """(item_id, prompt_key, sample_index) → what was said."""
        found: dict[tuple[str, str, int], Said] = {}
        for table in in_parallel(self._read_table, sorted(paths)):
            for row in table.to_pylist():
                record = from_row(Judged, row)
                said = found.setdefault((record.item_id, record.prompt_key, record.sample_index), {})
                for verdict in record.verdicts:
                    check = (verdict.verifier, verdict.given)
                    known = said.get(check)
                    if known is None or (known.score is None and verdict.score is not None):
                        said[check] = verdict
        return found

    def _verifying_in(self, path: str) -> Usage:
        return Usage(verifier=verifying_of(decode(self._files, path, VERDICT_COLUMNS)))

    def _usage_in(self, path: str) -> Usage:
        return usage_of(decode(self._files, path, TOKEN_COLUMNS))

    def _read_items(self, path: str) -> list[str]:
        return list(map(str, read_json(self._files, path)["items"]))


def encode(record: type, records: Sequence[Any], path: str) -> bytes:
    """Records as one zstd Parquet file with the columns of ``record``. ``path`` is named in errors.

    Raises:
        StoreError: a value does not fit its column.
    """
    sink = pa.BufferOutputStream()
    try:
        table = pa.Table.from_pylist([to_row(each) for each in records], schema=columns_of(record))
        pq.write_table(table, sink, compression="zstd")
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise StoreError(f"cannot write {path}: a {record.__name__} does not fit its columns: {error}") from error
    return bytes(sink.getvalue())


def decode(files: Files, path: str, columns: Sequence[str] | None = None) -> Any:
    """The ``pyarrow.Table`` in a Parquet file of the run, or some of its columns.

    Raises:
        StoreError: the file is missing, torn, or not what was written there.
    """
    data = read_existing(files, path)
    try:
        # Arrow's threads may still free a buffer that Python owns while the interpreter ends, which aborts it.
        return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{files.url}/{path} is torn or corrupt: {error}; restore it, or begin a new run") from error


def usage_of(samples: Any) -> Usage:
    """Tokens by class and model of a table that has ``TOKEN_COLUMNS``, and of its verdicts where it has
    ``VERDICT_COLUMNS``."""
    verifying = verifying_of(samples) if "verdicts" in samples.column_names else {}
    if "model" not in samples.column_names:
        return Usage(*_by_class(samples), verifying)
    models = {str(name): _by_class(samples.filter(pc.equal(samples["model"], name))) for name in _names(samples)}
    return Usage(*models.pop("", ByClass()), verifying, models)


def _names(samples: Any) -> list[str]:
    return sorted(pc.unique(samples["model"]).to_pylist())


def _by_class(samples: Any) -> ByClass:
    prompt, cached, completion = (int(pc.sum(samples[name]).as_py() or 0) for name in TOKEN_COLUMNS[:3])
    return ByClass(prompt - cached, cached, completion)


def verifying_of(table: Any) -> dict[str, int]:
    """Verifier → tokens its verdicts cost, of a table that has ``VERDICT_COLUMNS``; the free are left out."""
    found: Counter[str] = Counter()
    verdicts = pc.list_flatten(table["verdicts"].combine_chunks())
    names, tokens = (pc.struct_field(verdicts, name).to_pylist() for name in ("verifier", "tokens"))
    for name, count in zip(names, tokens, strict=True):
        found[name] += count
    return {name: count for name, count in found.items() if count}


def read_json(files: Files, path: str) -> dict[str, Any]:
    """A JSON object of the run. Raises StoreError where it is missing or no JSON object."""
    return parse_json(files, path, read_existing(files, path))


def parse_json(files: Files, path: str, data: bytes) -> dict[str, Any]:
    """``data``, read at ``path``, as a JSON object. Raises StoreError where it is none."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StoreError(f"{files.url}/{path} is torn or corrupt: {error}; restore it, or begin a new run") from error
    if not isinstance(value, dict):
        raise StoreError(f"{files.url}/{path} is corrupt: it holds no JSON object; restore it, or begin a new run")
    return value


def read_existing(files: Files, path: str) -> bytes:
    """The bytes of an object that must be there. Raises StoreError where it is not."""
    try:
        return files.read(path)
    except FileNotFoundError:
        raise StoreError(f"{files.url}/{path} is gone: the run names it; restore it, or begin a new run") from None


def in_parallel(read: Callable[[K], T], keys: Sequence[K]) -> list[T]:
    """``read`` of each key, in order; the first failure is raised."""
    if len(keys) < 2:
        return [read(key) for key in keys]
    with ThreadPoolExecutor(max_workers=min(READERS, len(keys))) as pool:
        return list(pool.map(read, keys))


def checked(writer: str) -> str:
    """A writer's name, if it can be part of a file name. Raises StoreError otherwise."""
    if not _WRITER.fullmatch(writer):
        raise StoreError(f"writer {writer!r} cannot name a file: use letters, digits, '.', '_' and '-'")
    return writer


def _with_verdicts(sample: Sample, said: dict[tuple[str, str, int], Said]) -> Sample:
    verdicts = said.get((sample.item_id, sample.prompt_key, sample.sample_index))
    return sample if verdicts is None else replace(sample, verdicts=tuple(verdicts.values()))


def _folder(shard_id: int) -> str:
    return f"journal/{shard_id:06d}"


def _identity(sample: Sample) -> tuple[str, int, str, int]:
    # -1 stands for no parent, so that identities sort.
    return (sample.item_id, sample.sample_index, sample.prompt_key, -1 if sample.parent is None else sample.parent)
