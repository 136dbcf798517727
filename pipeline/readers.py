"""Files of a dataset as rows: Parquet by row group, JSON Lines and CSV line by line.

Promises: a row's number within its file never depends on where reading starts; a malformed row is yielded as such and
not raised; no file is held in memory; every failure of a whole file is a ``SourceError``. Owns the file formats and
the JSON form of their values. May not know what a column means.

Rows are counted from 0. Blank lines do not count; malformed lines do.
"""

from __future__ import annotations

import base64
import bisect
import csv
import datetime
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from pipeline.errors import SourceError
from pipeline.source_files import opened, version_of

MAX_DEPTH = 100
"""Nesting of a JSON row; a deeper one would exhaust the stack of whoever walks it."""
_BATCH_ROWS = 1024

Observe = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``values`` by column, or None where it is malformed; then ``fault`` says why and ``raw`` is its text."""

    number: int
    values: dict[str, Any] | None
    fault: str = ""
    raw: bytes = b""


def read_columns(path: str) -> tuple[str, ...] | None:
    """Names of a file's columns, or None for JSON Lines, where each row has its own."""
    if path.lower().endswith(".parquet"):
        with _parquet(path) as source:
            return tuple(source.schema_arrow.names)
    if path.lower().endswith(".csv"):
        with opened(path) as file:
            return _CsvRecords(path, file, None).header
    return None


def read_rows(
    path: str,
    start: int = 0,
    stop: int | None = None,
    columns: list[str] | None = None,
    observe: Observe | None = None,
) -> Iterator[Row]:
    """Rows ``[start, stop)`` of one file, in order; fewer where the file ends.

    ``columns`` narrows what is read of a Parquet file. ``observe`` is given the bytes passed over, so that one scan
    both counts and hashes: a text file's lines as they are, a Parquet file's rows as the canonical JSON of ``columns``.

    Raises:
        SourceError: the file cannot be opened, is corrupt, or its rows cannot be told apart.
    """
    if path.lower().endswith(".parquet"):
        return _parquet_rows(path, start, stop, columns, observe)
    if path.lower().endswith(".csv"):
        return _csv_rows(path, start, stop, observe)
    return _jsonl_rows(path, start, stop, observe)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: times as ISO 8601, bytes as base64, NaN and infinities as null, else text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    return str(value)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, whatever file they came from."""
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def text_of(value: Any) -> str | None:
    """A cell as text: ``42``, ``3.0``, ``2024-01-31``; None where it is null, NaN or empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str | int | float):
        return str(value) or None
    value = plain(value)
    return (value if isinstance(value, str) else canonical(value)) or None


# --- JSON Lines and CSV --------------------------------------------------------------------------------------------

_BOOKMARKS: dict[str, list[tuple[int, int]]] = {}
"""(row, byte offset) where reads of a text file ended, by version of the file, for this process. Only a shortcut: a
worker takes a file's shards in rising order, and would otherwise pass over all earlier lines again for each of them."""


def _bookmark_before(version: str, row: int) -> tuple[int, int]:
    marks = _BOOKMARKS.get(version, []) if row else []
    place = bisect.bisect_right(marks, (row, sys.maxsize))
    return marks[place - 1] if place else (0, 0)


def _set_bookmark(version: str, row: int, offset: int) -> None:
    marks = _BOOKMARKS.setdefault(version, [])
    place = bisect.bisect_left(marks, (row, offset))
    if marks[place : place + 1] != [(row, offset)]:
        marks.insert(place, (row, offset))


def _jsonl_rows(path: str, start: int, stop: int | None, observe: Observe | None) -> Iterator[Row]:
    with opened(path) as file:
        version = version_of(path)
        number, offset = _bookmark_before(version, start)
        file.seek(offset)
        while (stop is None or number < stop) and (line := file.readline()):
            offset += len(line)
            if observe is not None:
                observe(line)
            if line.isspace():
                continue
            if number >= start:
                yield _parse_line(number, line)
            number += 1
        _set_bookmark(version, number, offset)


def _parse_line(number: int, line: bytes) -> Row:
    try:
        values = json.loads(line.decode("utf-8-sig"))
        if not isinstance(values, dict):
            raise ValueError(f"a row must be a JSON object, not {type(values).__name__}")
        if line.count(b"{") + line.count(b"[") > MAX_DEPTH and _deeper_than(values, MAX_DEPTH):
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if b"\\ud" in line.lower():
            # A lone surrogate is legal in JSON text and in no other store: neither Arrow nor UTF-8 can hold it.
            canonical(values).encode("utf-8")
    except (ValueError, RecursionError) as error:
        return Row(number, None, f"malformed JSON: {str(error) or type(error).__name__}", line)
    return Row(number, values)


def _deeper_than(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(part, levels - 1) for part in parts)


class _CsvRecords:
    """The records of one CSV file, its header first, and the byte ``offset`` behind the last one."""

    def __init__(self, path: str, file: IO[bytes], observe: Observe | None) -> None:
        self.path, self.file, self.observe = path, file, observe
        self.offset = 0
        # A cell may be a long document; the module's limit of 128 KiB is global, and can only be raised for all.
        csv.field_size_limit(sys.maxsize)
        # Not strict, an open quote would swallow the rest of the file and call it one cell.
        self.reader = csv.reader(self._lines(), strict=True)
        self.header = tuple(next(self, []))
        repeated = [name for name, times in Counter(self.header).items() if times > 1]
        if repeated:
            raise SourceError(f"dataset.path: the header of {path} names {repeated[0]!r} twice; rename one column")

    def _lines(self) -> Iterator[str]:
        while line := self.file.readline():
            text = line.decode("utf-8" if self.offset else "utf-8-sig")
            self.offset += len(line)
            if self.observe is not None:
                self.observe(line)
            yield text

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        try:
            record: list[str] = []
            while not record:  # a blank line parses to no cells
                record = next(self.reader)
            return record
        except csv.Error as error:
            raise SourceError(
                f"dataset.path: {self.path} is not valid CSV before byte {self.offset}: {error}; mend the quotes"
            ) from None
        except UnicodeDecodeError:
            raise SourceError(
                f"dataset.path: {self.path} is not UTF-8 after byte {self.offset}; convert its encoding"
            ) from None


def _csv_rows(path: str, start: int, stop: int | None, observe: Observe | None) -> Iterator[Row]:
    with opened(path) as file:
        version = version_of(path)
        records = _CsvRecords(path, file, observe)
        number, offset = _bookmark_before(version, start)
        if number:
            records.offset = offset
            file.seek(offset)
        while stop is None or number < stop:
            record = next(records, None)
            if record is None:
                break
            if number >= start:
                yield _named(number, records.header, record)
            number += 1
        _set_bookmark(version, number, records.offset)


def _named(number: int, header: tuple[str, ...], record: list[str]) -> Row:
    if len(record) != len(header):
        fault = f"the row has {len(record)} cells where the header names {len(header)}"
        return Row(number, None, fault, canonical(record).encode("utf-8"))
    return Row(number, dict(zip(header, record, strict=True)))


# --- Parquet -------------------------------------------------------------------------------------------------------


@contextmanager
def _parquet(path: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(path) as file:
        try:
            yield pq.ParquetFile(file, pre_buffer=True)
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, PermissionError | FileNotFoundError):
                raise
            raise SourceError(
                f"dataset.path: {path} is not readable Parquet: {error}; write it again, or leave it out"
            ) from None


def _parquet_rows(
    path: str, start: int, stop: int | None, columns: list[str] | None, observe: Observe | None
) -> Iterator[Row]:
    with _parquet(path) as source:
        first = 0
        for group in range(source.num_row_groups):
            rows = source.metadata.row_group(group).num_rows
            low, high = max(start - first, 0), rows if stop is None else min(stop - first, rows)
            if low < high:
                for row in _group_rows(source, group, low, high, columns):
                    if observe is not None:
                        observe(canonical(row.values).encode("utf-8"))
                    yield Row(first + row.number, row.values)
            first += rows


def _group_rows(source: Any, group: int, low: int, high: int, columns: list[str] | None) -> Iterator[Row]:
    passed = 0
    for batch in source.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
        begin, end = max(low - passed, 0), min(high - passed, batch.num_rows)
        if begin < end:
            values = _microseconds(batch.slice(begin, end - begin)).to_pylist()
            for place, row in enumerate(values, passed + begin):
                yield Row(place, row)
        passed += batch.num_rows
        if passed >= high:
            return


def _microseconds(batch: Any) -> Any:
    """Nanosecond columns cut to microseconds: Python's times hold no more, and Arrow refuses without pandas."""
    import pyarrow as pa

    for place, column in enumerate(batch.schema):
        kind = column.type
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            kind = pa.timestamp("us", kind.tz)
        elif pa.types.is_time64(kind) and kind.unit == "ns":
            kind = pa.time64("us")
        elif pa.types.is_duration(kind) and kind.unit == "ns":
            kind = pa.duration("us")
        else:
            continue
        batch = batch.set_column(place, column.name, batch.column(place).cast(kind, safe=False))
    return batch
