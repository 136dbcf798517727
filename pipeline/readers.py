"""Files of a dataset as rows: Parquet by row group, JSON Lines and CSV line by line, local or on S3.

Promises: a row's number within its file never depends on where reading starts; a malformed row is yielded as such and
not raised; no file is held in memory; every failure of a whole file is a ``SourceError``. Owns the file formats, the
JSON form of their values, and the object store's settings, which come from the environment alone
(``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``). May not know what a column means.

Rows are counted from 0. Blank lines do not count; malformed lines do.
"""

from __future__ import annotations

import base64
import bisect
import csv
import datetime
import glob
import io
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from pipeline.errors import SourceError

FORMATS = (".parquet", ".jsonl", ".csv")
MAX_DEPTH = 100
"""Nesting of a JSON row; a deeper one would exhaust the stack of whoever walks it."""
_BATCH_ROWS = 1024
_REMOTE_BLOCK = 4 * 2**20
"""Bytes fetched at once from S3. Its client's default, 50 MB, would be paid again for every small shard."""

Observe = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``values`` by column, or None where it is malformed; then ``fault`` says why and ``raw`` is its text."""

    number: int
    values: dict[str, Any] | None
    fault: str = ""
    raw: bytes = b""


def find_files(patterns: str | list[str]) -> tuple[str, ...]:
    """Absolute paths or s3:// URLs of all files, in the order of the patterns; what one glob matches is sorted.

    Raises:
        SourceError: a pattern matches nothing, or a match is empty, named twice, or of no known format.
    """
    listed = [patterns] if isinstance(patterns, str) else patterns
    paths = [path for pattern in listed for path in _expand(pattern)]
    if not paths:
        raise SourceError("dataset.path: [] names no file; give at least one path")
    path, times = Counter(paths).most_common(1)[0]
    if times > 1:
        raise SourceError(f"dataset.path: {path} is named {times} times; name it once, or its rows would be repeated")
    return tuple(paths)


def read_columns(path: str) -> tuple[str, ...] | None:
    """Names of a file's columns, or None for JSON Lines, where each row has its own."""
    if path.lower().endswith(".parquet"):
        with _parquet(path) as source:
            return tuple(source.schema_arrow.names)
    if path.lower().endswith(".csv"):
        with _opened(path) as file:
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


# --- finding and opening -------------------------------------------------------------------------------------------


def _expand(pattern: str) -> list[str]:
    remote = pattern.startswith("s3://")
    if ("://" in pattern and not remote) or "::" in pattern or not pattern:
        raise SourceError(
            f"dataset.path: {pattern!r} is no path Ponder reads; give a local path, s3://bucket/key, or "
            "reasoning_gym:TASK alone"
        )
    with _reading(pattern):
        fs, name = _filesystem(pattern)
        fs.invalidate_cache()
        try:
            infos = [fs.info(name)]
        except FileNotFoundError:
            found = fs.glob(name, detail=True) if glob.has_magic(name) else {}
            infos = [found[key] for key in sorted(found)]
            infos = [info for info in infos if info["type"] == "file"]
            if remote and not infos:
                _check_bucket(fs, name.split("/")[0])
    if not infos:
        raise SourceError(f"dataset.path: {pattern!r} matches no file; mend the path or the glob")
    return [_checked(info, "s3://" if remote else "") for info in infos]


def _check_bucket(fs: Any, bucket: str) -> None:
    # A glob is silent about a bucket that is missing or refuses: it just matches nothing.
    try:
        fs.info(bucket)
    except FileNotFoundError:
        raise SourceError(
            f"dataset.path: the bucket {bucket!r} does not exist; mend its name, or AWS_ENDPOINT_URL where another "
            "store is meant"
        ) from None


def _checked(info: dict[str, Any], scheme: str) -> str:
    path = scheme + str(info["name"])
    if info["type"] != "file":
        raise SourceError(f"dataset.path: {path} is a directory; name its files, for example {path}/*.parquet")
    if not path.lower().endswith(FORMATS):
        raise SourceError(
            f"dataset.path: {path} is of no known type; files must end in {', '.join(FORMATS)}, so narrow the glob or "
            "convert the file"
        )
    if not info["size"]:
        raise SourceError(f"dataset.path: {path} is empty (0 bytes); write it again, or leave it out")
    return path


def _filesystem(path: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    fs, name = url_to_fs(path)
    return fs, str(name)


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    with _reading(path):
        if not path.startswith("s3://"):
            with open(path, "rb") as local:
                yield local
            return
        fs, name = _filesystem(path)
        with fs.open(name, "rb", block_size=_REMOTE_BLOCK) as remote:
            # The client's own readline copies a whole block for every line.
            yield io.BufferedReader(remote, 2**20)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what local disks and S3 raise into a ``SourceError`` that says what to mend."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"dataset.path: {path} does not exist; mend the path") from None
    except PermissionError as error:
        mend = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, and that they may list and read"
        if not path.startswith("s3://"):
            mend = "check the file's permissions"
        raise SourceError(f"dataset.path: reading {path} was refused ({error}); {mend}") from None
    except (OSError, *_s3_errors(path)) as error:
        mend = "check AWS_ENDPOINT_URL and the credentials in the environment" if "s3://" in path else "check the disk"
        raise SourceError(f"dataset.path: cannot read {path}: {error}; {mend}") from None


def _s3_errors(path: str) -> tuple[type[Exception], ...]:
    if not path.startswith("s3://"):
        return ()
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)


# --- JSON Lines and CSV --------------------------------------------------------------------------------------------

_BOOKMARKS: dict[str, list[tuple[int, int]]] = {}
"""(row, byte offset) where reads of a text file ended, by version of the file, for this process. Only a shortcut: a
worker takes a file's shards in rising order, and would otherwise pass over all earlier lines again for each of them."""


def _version(path: str) -> str:
    if path.startswith("s3://"):
        fs, name = _filesystem(path)
        return f"{path} {fs.ukey(name)}"
    status = os.stat(path)
    return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _bookmark_before(version: str, row: int) -> tuple[int, int]:
    marks = _BOOKMARKS.get(version, [])
    place = bisect.bisect_right(marks, (row, sys.maxsize))
    return marks[place - 1] if place else (0, 0)


def _set_bookmark(version: str, row: int, offset: int) -> None:
    marks = _BOOKMARKS.setdefault(version, [])
    place = bisect.bisect_left(marks, (row, offset))
    if marks[place : place + 1] != [(row, offset)]:
        marks.insert(place, (row, offset))


def _jsonl_rows(path: str, start: int, stop: int | None, observe: Observe | None) -> Iterator[Row]:
    with _opened(path) as file:
        version = _version(path)
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
    with _opened(path) as file:
        version = _version(path)
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

    with _opened(path) as file:
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
