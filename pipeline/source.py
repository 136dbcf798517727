"""The dataset: planned into shards once, read back shard by shard.

Promises: the same data and the same ``DatasetSpec`` give the same shards and fingerprint; ``read_shard`` over all
shards yields every planned row exactly once, in order, under an id that is unique in the run; a bad row is a
``DeadLetter``, a bad dataset a ``SourceError``. Owns what a column means. Planning is one streamed pass that keeps 16
bytes a row. May not write anything.

The fingerprint covers the planned rows: of JSON Lines and CSV all bytes, of Parquet the values of the columns that the
plan reads (ids, the prompt's columns, reference, stakes; all columns where no id column is named), with the files'
base names. It does not change when files move or a Parquet file is compressed anew.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline import gym
from pipeline.errors import SourceError
from pipeline.prompts import PromptTemplate, RowFault, compile_template, parse_messages
from pipeline.readers import Row, canonical, read_columns, read_rows, text_of
from pipeline.records import DeadLetter, Item, Segment, Shard
from pipeline.source_files import find_files
from pipeline.spec import DatasetSpec

_DIGEST_BYTES = 16
_SHOWN_COLUMNS = 40


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset cut into shards. ``items`` counts rows; ``fingerprint`` is a hex digest of the data, wherever it is."""

    shards: tuple[Shard, ...]
    items: int
    has_reference: bool
    fingerprint: str


class _FileRows(NamedTuple):
    path: str
    rows: int


class _Repeat(NamedTuple):
    """Positions, in the whole dataset, of two rows with one id."""

    earlier: int
    later: int


class _Identity(NamedTuple):
    item_id: str
    fault: str = ""


def plan_dataset(spec: DatasetSpec, shard_size: int) -> DatasetPlan:
    """Check the whole dataset and cut it into shards of at most ``shard_size`` rows, in dataset order.

    Raises:
        SourceError: files are missing, unreadable or of no known type; a named column does not exist; ids repeat; there
            are no rows; the template is wrong. The message names field, value and mend.
    """
    if shard_size < 1:
        raise SourceError(f"cluster.shard_size: {shard_size} rows make no shard; give at least 1")
    if gym.is_gym(spec):
        files = [_FileRows(str(spec.path), gym.count_tasks(spec))]
        return DatasetPlan(_pack(files, shard_size), files[0].rows, True, gym.fingerprint(spec))
    needed = _needed_columns(spec)
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    seen = _SeenColumns(set(needed))
    ids = bytearray()
    files = []
    left = spec.limit
    for path in find_files(spec.path):
        if left == 0:
            break
        _check_columns(path, needed)
        before = len(ids)
        columns = sorted(needed) if spec.id is not None else None
        for row in read_rows(path, 0, left, columns, digest.update):
            seen.add(row)
            ids += hashlib.blake2b(_identify(spec, path, row).item_id.encode(), digest_size=_DIGEST_BYTES).digest()
        rows = (len(ids) - before) // _DIGEST_BYTES
        left = None if left is None else left - rows
        digest.update(f"\n{_basename(path)}\n{rows}\n".encode())
        files.append(_FileRows(path, rows))
    items = len(ids) // _DIGEST_BYTES
    if not items:
        raise SourceError(f"dataset.path: {spec.path!r} has no rows; give files that hold at least one")
    seen.check(spec, needed)
    repeat = _first_repeat(ids)
    if repeat is not None:
        raise _repeated(spec, files, repeat)
    return DatasetPlan(_pack(files, shard_size), items, spec.reference is not None, digest.hexdigest())


def read_shard(spec: DatasetSpec, shard: Shard) -> Iterator[Item | DeadLetter]:
    """Every planned row of one shard, in order: an item, or a dead letter where the row itself is at fault.

    Raises:
        SourceError: a file is gone, unreadable, or has fewer rows than were planned.
    """
    for segment in shard.segments:
        if gym.is_gym(spec):
            yield from gym.read_tasks(spec, segment.start, segment.stop)
            continue
        template = None if spec.messages is not None else compile_template(spec.prompt)
        reached = segment.start
        for row in read_rows(segment.path, segment.start, segment.stop):
            reached = row.number + 1
            yield _to_item(spec, template, segment.path, row)
        if reached != segment.stop:
            raise SourceError(
                f"dataset.path: {segment.path} has {reached} rows where {segment.stop} were planned: it changed since "
                "the run began; restore it, or start a new run"
            )


# --- one row -------------------------------------------------------------------------------------------------------


def _to_item(spec: DatasetSpec, template: PromptTemplate | None, path: str, row: Row) -> Item | DeadLetter:
    item_id, fault = _identify(spec, path, row)
    if row.values is None:
        return DeadLetter(item_id, "source", _at(path, row, fault))
    used = {spec.id, spec.messages, spec.reference, spec.stakes}
    payload = canonical({name: value for name, value in row.values.items() if name not in used})
    try:
        if fault:
            raise RowFault(fault)
        stakes = _stakes(spec, row.values.get(spec.stakes) if spec.stakes is not None else None)
        reference = text_of(row.values.get(spec.reference)) if spec.reference is not None else None
        if spec.messages is not None:
            messages = parse_messages(row.values.get(spec.messages), spec.messages)
            return Item(item_id, messages=messages, reference=reference, stakes=stakes, payload=payload)
        assert template is not None
        prompt = template.render(row.values)
    except RowFault as error:
        return DeadLetter(item_id, "source", _at(path, row, str(error)), payload=payload)
    return Item(item_id, prompt=prompt, reference=reference, stakes=stakes, payload=payload)


def _identify(spec: DatasetSpec, path: str, row: Row) -> _Identity:
    """A row's id, and what is wrong with the row where it has none of its own.

    Such a row's id is made of its place. The folder is part of it, hashed: part-0.jsonl may stand in every folder.
    """
    place = f"{_basename(path)}:{row.number}"
    if row.values is None:
        return _Identity(f"{place}:{_hash(path.encode() + row.raw)}", row.fault)
    if spec.id is None:
        return _Identity(_hash(canonical(row.values).encode()))
    item_id = text_of(row.values.get(spec.id))
    if item_id is None:
        return _Identity(f"{place}:{_hash(path.encode())}", f"the id column {spec.id!r} is null or empty")
    return _Identity(item_id)


def _stakes(spec: DatasetSpec, value: object) -> float:
    if value is None or value == "":
        return 1.0
    try:
        stakes = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        stakes = math.nan
    if not math.isfinite(stakes) or stakes < 0:
        raise RowFault(f"the stakes column {spec.stakes!r} must be a finite number >= 0, not {str(value)[:40]!r}")
    return stakes


def _at(path: str, row: Row, fault: str) -> str:
    return f"{path}:{row.number}: {fault}"


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def _basename(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


# --- columns -------------------------------------------------------------------------------------------------------


def _needed_columns(spec: DatasetSpec) -> dict[str, str]:
    """Columns every file must have, each with the field of the job file that asks for it."""
    needed = {}
    if spec.messages is None:
        needed = dict.fromkeys(compile_template(spec.prompt).columns, "prompt")
    for role in ("stakes", "reference", "messages", "id"):
        name = getattr(spec, role)
        if name is not None:
            needed[name] = role
    return needed


def _check_columns(path: str, needed: dict[str, str]) -> None:
    columns = read_columns(path)
    for name, role in needed.items():
        if columns is not None and name not in columns:
            raise _missing_column(name, role, path, list(columns))


def _missing_column(name: str, role: str, where: str, columns: list[str]) -> SourceError:
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (", …" if len(columns) > _SHOWN_COLUMNS else "")
    mend = "mend the name" if role != "prompt" else "set dataset.prompt to a template over these columns"
    return SourceError(f"dataset.{role}: there is no column {name!r} in {where}; its columns are {shown}; {mend}")


@dataclass
class _SeenColumns:
    """Columns that rows were seen to have. JSON Lines has no header: a column exists if any row has it."""

    missing: set[str]
    some: dict[str, None] = field(default_factory=dict)
    parsed: bool = False
    fault: str = ""

    def add(self, row: Row) -> None:
        if row.values is None:
            self.fault = self.fault or row.fault
            return
        self.parsed = True
        self.missing -= row.values.keys()
        # Bounded: a hostile file may name other columns in every row.
        if len(self.some) <= _SHOWN_COLUMNS:
            self.some.update(dict.fromkeys(list(row.values)[: _SHOWN_COLUMNS + 1]))

    def check(self, spec: DatasetSpec, needed: dict[str, str]) -> None:
        if not self.parsed:
            raise SourceError(f"dataset.path: no row of {spec.path!r} can be read ({self.fault}); mend the files")
        for name in sorted(self.missing):
            raise _missing_column(name, needed[name], str(spec.path), list(self.some))


# --- ids and shards ------------------------------------------------------------------------------------------------


def _first_repeat(ids: bytearray) -> _Repeat | None:
    """The first row whose digest an earlier row has too; ``ids`` holds one digest after the other."""
    import numpy as np

    halves = np.frombuffer(ids, dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal digests stay in dataset order
    same = (halves[order[1:]] == halves[order[:-1]]).all(axis=1)
    if not same.any():
        return None
    earlier, later = order[:-1][same], order[1:][same]
    first = int(later.argmin())
    return _Repeat(int(earlier[first]), int(later[first]))


def _repeated(spec: DatasetSpec, files: list[_FileRows], repeat: _Repeat) -> SourceError:
    first, second = _locate(files, repeat.earlier), _locate(files, repeat.later)
    places = f"{first.path}:{first.start} and {second.path}:{second.start} (rows count from 0)"
    if spec.id is None:
        return SourceError(
            f"dataset.id: the rows at {places} are identical, so a hash of the content cannot tell them apart; remove "
            "the repeated rows, or name a column with unique ids"
        )
    row = next(read_rows(first.path, first.start, first.stop))
    return SourceError(
        f"dataset.id: the id {_identify(spec, first.path, row).item_id!r} in column {spec.id!r} stands at {places}; "
        "make the ids unique, or leave dataset.id out to use a hash of each row"
    )


def _locate(files: list[_FileRows], position: int) -> Segment:
    for path, rows in files:
        if position < rows:
            return Segment(path, position, position + 1)
        position -= rows
    raise IndexError(position)


def _pack(files: list[_FileRows], shard_size: int) -> tuple[Shard, ...]:
    """Shards of exactly ``shard_size`` rows, but the last; small files share a shard, large ones span several."""
    shards: list[Shard] = []
    segments: list[Segment] = []
    room = shard_size
    for path, rows in files:
        start = 0
        while start < rows:
            stop = min(start + room, rows)
            segments.append(Segment(path, start, stop))
            room -= stop - start
            start = stop
            if not room:
                shards.append(Shard(len(shards), shard_size, tuple(segments)))
                segments, room = [], shard_size
    if segments:
        shards.append(Shard(len(shards), shard_size - room, tuple(segments)))
    return tuple(shards)
