"""Committed output: which rows of a shard a reader sees, exactly once per item.

Promises: a shard's generation becomes visible whole, through one commit object that the first writer creates; a loser
deletes its own files and reads the winner's; the newest generation replaces the ones before, and the first of another
rule those of the rules before it. No renames, no copies, and nothing is deleted that could still be named: orphans are
told, not removed, here.
May not judge a run finished: ``check_complete`` says what the committed files hold, the store acts on it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from budgets.experience import Lesson, Lessons
from pipeline.errors import StoreError
from pipeline.filesystem import Files
from pipeline.journal import checked, encode, in_parallel, parse_json, read_json
from pipeline.records import Answer, DeadLetter, Decision, Sample, Shard

KINDS: dict[str, type] = {"answers": Answer, "samples": Sample, "decisions": Decision, "dead_letters": DeadLetter}
FOLDERS = {"answers": "answers", "samples": "samples", "decisions": "decisions", "dead_letters": "dead_letter"}

SHOWN = 5
"""Offending ids or shards a message lists."""

_STEM = r"(?P<shard>\d+)(?:\.r(?P<rule>\d+))?\.g(?P<generation>\d+)"
_COMMIT = re.compile(rf"commits/{_STEM}\.json")
_DATA = re.compile(rf"(?:answers|samples|decisions|dead_letter)/{_STEM}-.+\.parquet")


@dataclass(frozen=True, slots=True)
class Commit:
    """One generation of one shard. ``files`` and ``rows`` are by kind; a kind without rows has no file.

    ``items`` = answers + dead letters; ``tokens`` and ``verifier_tokens`` are those of its samples. ``rule``: number of
    the rule that selected the answers; generations count from 0 under each. ``lessons``: what its questions taught.
    """

    shard_id: int
    generation: int
    writer: str
    files: dict[str, str]
    rows: dict[str, int]
    items: int
    tokens: int
    verifier_tokens: int
    rule: int = 0
    lessons: Lessons = ()


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """``won``: our rows are the committed ones. ``commit`` is the one that stands."""

    won: bool
    commit: Commit


class Commits:
    """The commits of one run. Holds a cache of commit objects, which never change."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._known: dict[str, Commit] = {}

    def commit(
        self,
        shard_id: int,
        generation: int,
        rows: dict[str, Sequence[Any]],
        writer: str,
        rule: int = 0,
        lessons: Lessons = (),
    ) -> CommitOutcome:
        """Write ``rows`` (by kind), then the commit object. See ``Store.commit``."""
        ids = Counter(row.item_id for kind in ("answers", "dead_letters") for row in rows[kind])
        repeated = [item_id for item_id, count in ids.items() if count > 1]
        if repeated:
            raise StoreError(f"shard {shard_id}: items answered or dead-lettered twice: {some(repeated)}")
        stem = _stem(shard_id, rule, generation)
        path = f"commits/{stem}.json"
        standing = self._find(path)
        if standing is not None:
            return CommitOutcome(won=False, commit=standing)
        # The nonce lets one life try again after a failure without touching files a commit may already name.
        suffix = f"{stem}-{checked(writer)}-{uuid.uuid4().hex[:8]}.parquet"
        files = {kind: f"{FOLDERS[kind]}/{suffix}" for kind in KINDS if rows[kind]}
        for kind, name in files.items():
            self._files.put(name, encode(KINDS[kind], rows[kind], name))
        ours = Commit(
            shard_id=shard_id,
            generation=generation,
            writer=writer,
            files=files,
            rows={kind: len(rows[kind]) for kind in KINDS},
            items=ids.total(),
            tokens=sum(sample.billed_tokens for sample in rows["samples"]),
            verifier_tokens=sum(sample.verifier_tokens for sample in rows["samples"]),
            rule=rule,
            lessons=lessons,
        )
        if self._files.create(path, json.dumps(asdict(ours), sort_keys=True).encode()):
            return CommitOutcome(won=True, commit=ours)
        winner = self._read(path)
        for name in files.values():
            self._files.delete(name)
        return CommitOutcome(won=False, commit=winner)

    def newest(self) -> dict[int, Commit]:
        """Shard id → its newest committed generation, under the newest rule it was answered by."""
        latest: dict[int, tuple[tuple[int, int], str]] = {}
        for path in self._files.list("commits"):
            if match := _COMMIT.fullmatch(path):
                shard_id = int(match["shard"])
                latest[shard_id] = max(latest.get(shard_id, ((-1, -1), "")), (_age(match), path))
        paths = [path for _, (_, path) in sorted(latest.items())]
        return {commit.shard_id: commit for commit in in_parallel(self._read, paths)}

    def data_files(self) -> list[str]:
        """All data files that are there now, committed or not."""
        return [path for folder in FOLDERS.values() for path in self._files.list(folder)]

    def check_complete(self, plan: Sequence[Shard], commits: dict[int, Commit], present: Sequence[str]) -> None:
        """Check on the files of ``commits`` that every planned item is there exactly once.

        Raises:
            StoreError: it is not so; the message names up to five shards or ids.
        """
        url = self._files.url
        planned = {shard.shard_id for shard in plan}
        if planned != commits.keys():
            missing, unknown = sorted(planned - commits.keys()), sorted(commits.keys() - planned)
            raise StoreError(
                f"{url} is not complete: shards without a commit: {some(missing)}; shards no plan knows: "
                f"{some(unknown)}; run the same command again"
            )
        named = {path for commit in commits.values() for path in commit.files.values()}
        gone = sorted(named.difference(present))
        if gone:
            raise StoreError(f"{url}: committed files are gone: {some(gone)}; restore them, or begin a new run")
        ids = in_parallel(self._item_ids, [commits[shard.shard_id] for shard in plan])
        short = [shard.shard_id for shard, found in zip(plan, ids, strict=True) if len(found) != shard.items]
        if short:
            raise StoreError(f"{url}: shards whose committed items are not as many as planned: {some(short)}")
        counts = pc.value_counts(pa.chunked_array(ids, type=pa.string()))
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
        if repeated:
            raise StoreError(f"{url}: items committed more than once: {some(sorted(repeated))}")

    def _item_ids(self, commit: Commit) -> Any:
        """All ids of a commit as one Arrow array, read from its files: what a reader sees, not what it claims."""
        filesystem, root = self._files.arrow()
        chunks = [pa.array([], pa.string())]
        for kind in ("answers", "dead_letters"):
            if kind in commit.files:
                path = commit.files[kind]
                try:
                    with pq.ParquetFile(f"{root}/{path}", filesystem=filesystem) as file:
                        chunks += file.read(columns=["item_id"], use_threads=False)["item_id"].chunks
                except (pa.ArrowException, OSError) as error:
                    raise StoreError(f"cannot read {self._files.url}/{path}: {error}; restore it") from error
        return pa.concat_arrays(chunks)

    def _find(self, path: str) -> Commit | None:
        try:
            return self._known.get(path) or self._parse(path, parse_json(self._files, path, self._files.read(path)))
        except FileNotFoundError:
            return None

    def _read(self, path: str) -> Commit:
        return self._known.get(path) or self._parse(path, read_json(self._files, path))

    def _parse(self, path: str, raw: dict[str, Any]) -> Commit:
        try:
            # Runs begun before there were rules, or lessons, name none.
            raw = {"rule": 0, **raw, "lessons": _lessons(raw.get("lessons", []))}
            self._known[path] = commit = Commit(**{name: raw[name] for name in Commit.__slots__})
        except KeyError as error:
            raise StoreError(f"{self._files.url}/{path} is corrupt: it has no {error}; restore it") from error
        except (TypeError, ValueError) as error:
            raise StoreError(f"{self._files.url}/{path} is corrupt: its lessons cannot be read: {error}") from error
        return commit


def _lessons(raw: list[Any]) -> Lessons:
    """Lessons as JSON has them: pairs of a subject, itself a pair, and a mapping."""
    return tuple(((name, option), Lesson(**lesson)) for (name, option), lesson in raw)


def orphans(present: Sequence[str], commits: dict[int, Commit]) -> list[str]:
    """Data files that no newest commit names and none ever will: their shard has that generation, or a later one."""
    named = {path for commit in commits.values() for path in commit.files.values()}
    decided = {shard_id: (commit.rule, commit.generation) for shard_id, commit in commits.items()}
    unnamed = [match for path in present if path not in named and (match := _DATA.fullmatch(path))]
    return [match.string for match in unnamed if _age(match) <= decided.get(int(match["shard"]), (-1, -1))]


def _stem(shard_id: int, rule: int, generation: int) -> str:
    """What the files of one generation begin with. The job's own rule, number 0, is not written."""
    return f"{shard_id:06d}{f'.r{rule}' if rule else ''}.g{generation}"


def _age(match: re.Match[str]) -> tuple[int, int]:
    """Rule and generation of a file: the larger is the newer."""
    return int(match["rule"] or 0), int(match["generation"])


def some(names: Sequence[Any]) -> str:
    """Up to five of ``names``, for a message."""
    shown = ", ".join(map(str, names[:SHOWN])) or "none"
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
