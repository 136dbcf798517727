"""The run directory: one run, exactly once (DESIGN, "The store: what is promised").

Promises: an item's committed output appears once, whatever crashes or races; a reader sees the files named by each
shard's newest commit and no others; ``_SUCCESS.json`` exists only if inputs = answered ⊎ dead-lettered, checked on the
committed files themselves; budgets, plan, samples and attempts are durable when their call returns.
Owns every name in the directory. May not rename or copy, may not delete what it did not write before ``_SUCCESS.json``,
and stores neither secrets nor pickles. All methods are synchronous and safe in threads.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import RunMismatch, StoreError, UsageError
from pipeline.filesystem import Files, open_files
from pipeline.fingerprint import diff
from pipeline.journal import Journal, checked, decode, encode, in_parallel, read_json
from pipeline.records import Answer, DeadLetter, Decision, Sample, Shard, from_row

FORMAT = 1
"""Version of the directory's layout; a reader refuses one it does not know."""

KINDS: dict[str, type] = {"answers": Answer, "samples": Sample, "decisions": Decision, "dead_letters": DeadLetter}
FOLDERS = {"answers": "answers", "samples": "samples", "decisions": "decisions", "dead_letters": "dead_letter"}

RUN, PLAN, SUCCESS = "run.json", "plan/shards.parquet", "_SUCCESS.json"

SHOWN = 5
"""Offending ids or shards a message lists."""

_COMMIT = re.compile(r"commits/(?P<shard>\d+)\.g(?P<generation>\d+)\.json")
_BUDGET = re.compile(r"budget/(?P<number>\d+)\.json")
_DATA = re.compile(r"(?:answers|samples|decisions|dead_letter)/(?P<shard>\d+)\.g(?P<generation>\d+)-.+\.parquet")


class Plan(Protocol):
    """What ``write_plan`` needs of a dataset's plan."""

    @property
    def shards(self) -> Sequence[Shard]: ...

    @property
    def items(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RunInfo:
    """``run.json``: the resolved ``job``, its ``fingerprint``, and when it was created (ISO 8601, UTC)."""

    format: int
    run_id: str
    job: dict[str, Any]
    fingerprint: dict[str, str]
    created_at: str


@dataclass(frozen=True, slots=True)
class Begin:
    """What ``begin`` found: ``resumed`` where the run was there already."""

    info: RunInfo
    resumed: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """One generation of one shard. ``files`` and ``rows`` are by kind; a kind without rows has no file.

    ``items`` = answers + dead letters; ``tokens`` and ``verifier_tokens`` are those of its samples.
    """

    shard_id: int
    generation: int
    writer: str
    files: dict[str, str]
    rows: dict[str, int]
    items: int
    tokens: int
    verifier_tokens: int


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """``won``: our rows are the committed ones. ``commit`` is the one that stands."""

    won: bool
    commit: Commit


class Store:
    """One run directory. Holds no state but a cache of commits, which never change."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._journal = Journal(files)
        self._commits: dict[str, Commit] = {}

    @staticmethod
    def open(url: str) -> Store:
        """The store at ``url`` (local path or ``s3://bucket/prefix``). No I/O; UsageError for any other scheme."""
        return Store(open_files(url))

    @property
    def url(self) -> str:
        return self.files.url

    # --- the run -------------------------------------------------------------------------------------------------

    def begin(self, job: dict[str, Any], fingerprint: dict[str, str], created_at: datetime | None = None) -> Begin:
        """Create the run, or find the one that is there. Of racing callers one creates, the others resume.

        Raises:
            RunMismatch: another run is there; the message holds the diff of the jobs.
            UsageError: the directory holds something that is no run.
        """
        found = self._run_info()
        if found is None:
            if any(path != RUN for path in self.files.list("")) and self._run_info() is None:
                raise UsageError(f"output {self.url}: not empty, yet holds no run; name an empty or new directory")
            created = (created_at or datetime.now(UTC)).astimezone(UTC).isoformat()
            info = RunInfo(FORMAT, str(uuid.uuid4()), job, fingerprint, created)
            if self.files.create(RUN, _dump(asdict(info))):
                return Begin(info, resumed=False)
            found = self.run_info()
        sections = sorted(
            name for name in found.fingerprint | fingerprint if found.fingerprint.get(name) != fingerprint.get(name)
        )
        if sections:
            changes = diff(found.job, job, sections).replace("\n", "\n  ")
            raise RunMismatch(
                f"output {self.url}: holds another run; restore these fields to resume it, or name another output:\n"
                f"  {changes}"
            )
        return Begin(found, resumed=True)

    def run_info(self) -> RunInfo:
        """Raises UsageError where there is no run."""
        info = self._run_info()
        if info is None:
            raise UsageError(f"no run at {self.url}: it has no {RUN}; check the path")
        return info

    def set_budget(self, tokens: int) -> None:
        """Record a budget durably, unless it is the latest already. The history stays in ``budget/``."""
        while tokens != self._recorded_budget():
            number = 1 + max((int(match["number"]) for match in self._budget_entries()), default=0)
            self.files.create(f"budget/{number:06d}.json", _dump({"tokens": tokens, "id": uuid.uuid4().hex}))

    def budget(self) -> int:
        """The budget recorded last, in tokens; before the first ``set_budget``, the one of the job."""
        recorded = self._recorded_budget()
        return int(self.run_info().job["budget"]["tokens"]) if recorded is None else recorded

    def write_plan(self, plan: Plan) -> None:
        """Write the plan once; the same plan again is fine.

        Raises:
            RunMismatch: another plan is there (then work by ``read_plan``).
            StoreError: the plan is not dense from 0, or its counts disagree.
        """
        shards = list(plan.shards)
        if [shard.shard_id for shard in shards] != list(range(len(shards))):
            raise StoreError("plan: shard ids must be dense from 0; this is a defect of the planner")
        if sum(shard.items for shard in shards) != plan.items:
            raise StoreError(f"plan: {plan.items} items, yet the shards hold {sum(shard.items for shard in shards)}")
        if not self.files.create(PLAN, encode(Shard, shards, PLAN)) and self.read_plan() != shards:
            raise RunMismatch(f"output {self.url}: holds another plan of this dataset; resume by the stored plan")

    def read_plan(self) -> list[Shard]:
        """The shards in order. Raises StoreError where no plan was written."""
        return [from_row(Shard, row) for row in decode(self.files, PLAN).to_pylist()]

    # --- the journal ---------------------------------------------------------------------------------------------

    def journal(self, shard_id: int, samples: Sequence[Sample], writer: str, seq: int) -> None:
        """See ``Journal.append``."""
        self._journal.append(shard_id, samples, writer, seq)

    def read_journal(self, shard_id: int) -> list[Sample]:
        """See ``Journal.read``."""
        return self._journal.read(shard_id)

    def journal_spent(self) -> dict[str, int]:
        """See ``Journal.spent``."""
        return self._journal.spent()

    def record_attempts(self, shard_id: int, item_ids: Sequence[str], writer: str, seq: int) -> None:
        """Before dispatch: these items are in flight in this writer's life."""
        self._journal.mark("attempts", shard_id, item_ids, writer, seq)

    def release_attempts(self, shard_id: int, item_ids: Sequence[str], writer: str, seq: int) -> None:
        """These items finished, or were given back cleanly. ``seq`` continues that of ``record_attempts``."""
        self._journal.mark("released", shard_id, item_ids, writer, seq)

    def attempts(self, shard_id: int, dead_writers: AbstractSet[str] | None = None) -> dict[str, int]:
        """See ``Journal.attempts``."""
        return self._journal.attempts(shard_id, dead_writers)

    # --- commits -------------------------------------------------------------------------------------------------

    def commit(
        self,
        shard_id: int,
        generation: int,
        answers: Sequence[Answer],
        samples: Sequence[Sample],
        decisions: Sequence[Decision],
        dead_letters: Sequence[DeadLetter],
        writer: str,
    ) -> CommitOutcome:
        """Make a shard's rows visible, all at once, unless this generation is committed already.

        Data files first, then the commit object, which the first writer creates; a loser deletes its own files. A
        generation replaces the one before, so it holds all rows of the shard.

        Raises:
            StoreError: an item is in the rows twice, or a write failed. Nothing is visible then.
        """
        repeated = [name for name, n in Counter(row.item_id for row in [*answers, *dead_letters]).items() if n > 1]
        if repeated:
            raise StoreError(f"shard {shard_id}: items answered or dead-lettered twice: {_some(repeated)}")
        path = f"commits/{shard_id:06d}.g{generation}.json"
        standing = self._commit_at(path)
        if standing is not None:
            return CommitOutcome(won=False, commit=standing)
        # The nonce lets one life try again after a failure without touching files a commit may already name.
        suffix = f"{shard_id:06d}.g{generation}-{checked(writer)}-{uuid.uuid4().hex[:8]}.parquet"
        rows: dict[str, Sequence[Any]] = {
            "answers": answers,
            "samples": samples,
            "decisions": decisions,
            "dead_letters": dead_letters,
        }
        files = {kind: f"{FOLDERS[kind]}/{suffix}" for kind in KINDS if rows[kind]}
        for kind, name in files.items():
            self.files.put(name, encode(KINDS[kind], rows[kind], name))
        ours = Commit(
            shard_id=shard_id,
            generation=generation,
            writer=writer,
            files=files,
            rows={kind: len(rows[kind]) for kind in KINDS},
            items=len(answers) + len(dead_letters),
            tokens=sum(sample.billed_tokens for sample in samples),
            verifier_tokens=sum(sample.verifier_tokens for sample in samples),
        )
        if self.files.create(path, _dump(asdict(ours))):
            return CommitOutcome(won=True, commit=ours)
        winner = self._read_commit(path)
        for name in files.values():
            self.files.delete(name)
        return CommitOutcome(won=False, commit=winner)

    def commits(self) -> dict[int, Commit]:
        """Shard id → its newest committed generation."""
        newest: dict[int, tuple[int, str]] = {}
        for path in self.files.list("commits"):
            if match := _COMMIT.fullmatch(path):
                shard_id = int(match["shard"])
                newest[shard_id] = max(newest.get(shard_id, (-1, "")), (int(match["generation"]), path))
        paths = [path for _, (_, path) in sorted(newest.items())]
        return {commit.shard_id: commit for commit in in_parallel(self._read_commit, paths)}

    # --- the end -------------------------------------------------------------------------------------------------

    def finish(self, summary: dict[str, Any]) -> None:
        """Check that inputs = answered ⊎ dead-lettered, write ``_SUCCESS.json``, then collect orphaned data files.

        ``summary`` is stored as given, with ``items``, ``answered`` and ``dead_lettered`` as counted here.

        Raises:
            StoreError: the check failed; the message names shards or ids. Nothing is written or deleted.
        """
        plan = self.read_plan()
        commits = self.commits()
        # Listed before the check and before success: a file written later is not ours to judge.
        present = [path for folder in FOLDERS.values() for path in self.files.list(folder)]
        self._check_complete(plan, commits, present)
        counted = {
            "items": sum(shard.items for shard in plan),
            "answered": sum(commit.rows["answers"] for commit in commits.values()),
            "dead_lettered": sum(commit.rows["dead_letters"] for commit in commits.values()),
        }
        self.files.put(SUCCESS, _dump({**summary, **counted}))
        in_parallel(self.files.delete, list(_orphans(present, commits)))

    def finished(self) -> dict[str, Any] | None:
        """What ``finish`` wrote, or None."""
        try:
            self.files.read(SUCCESS)
        except FileNotFoundError:
            return None
        return read_json(self.files, SUCCESS)

    def reopen(self) -> None:
        """A top-up begins: the run is no longer finished. Call it before spending."""
        self.files.delete(SUCCESS)

    def _check_complete(self, plan: Sequence[Shard], commits: dict[int, Commit], present: Iterable[str]) -> None:
        planned = {shard.shard_id for shard in plan}
        if planned != commits.keys():
            missing, unknown = sorted(planned - commits.keys()), sorted(commits.keys() - planned)
            raise StoreError(
                f"{self.url} is not complete: shards without a commit: {_some(missing)}; shards no plan knows: "
                f"{_some(unknown)}; run the same command again"
            )
        named = {path for commit in commits.values() for path in commit.files.values()}
        gone = sorted(named.difference(present))
        if gone:
            raise StoreError(f"{self.url}: committed files are gone: {_some(gone)}; restore them, or begin a new run")
        ids = in_parallel(self._item_ids, [commits[shard.shard_id] for shard in plan])
        short = [shard.shard_id for shard, found in zip(plan, ids, strict=True) if len(found) != shard.items]
        if short:
            raise StoreError(f"{self.url}: shards whose committed items are not as many as planned: {_some(short)}")
        counts = pc.value_counts(pa.chunked_array(ids, type=pa.string()))
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
        if repeated:
            raise StoreError(f"{self.url}: items committed more than once: {_some(sorted(repeated))}")

    def _item_ids(self, commit: Commit) -> Any:
        """All ids of a commit, as one Arrow array read from its files: what a reader sees, not what the commit claims."""
        filesystem, root = self.files.arrow()
        columns = []
        for kind in ("answers", "dead_letters"):
            if kind in commit.files:
                path = commit.files[kind]
                try:
                    table = pq.read_table(f"{root}/{path}", columns=["item_id"], filesystem=filesystem)
                except (pa.ArrowException, OSError) as error:
                    raise StoreError(f"cannot read {self.url}/{path}: {error}; restore it") from error
                columns.append(table["item_id"])
        return pa.concat_arrays([chunk for column in columns for chunk in column.chunks] or [pa.array([], pa.string())])

    # --- reading single objects ----------------------------------------------------------------------------------

    def _run_info(self) -> RunInfo | None:
        try:
            raw = json.loads(self.files.read(RUN))
            info = RunInfo(**{name: raw[name] for name in RunInfo.__slots__})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.url}/{RUN} is corrupt: {error!r}; restore it, or name another output") from error
        if info.format != FORMAT:
            raise UsageError(f"{self.url}: format {info.format} of the run directory; this version reads {FORMAT}")
        return info

    def _budget_entries(self) -> list[re.Match[str]]:
        return [match for path in self.files.list("budget") if (match := _BUDGET.fullmatch(path))]

    def _recorded_budget(self) -> int | None:
        entries = self._budget_entries()
        if not entries:
            return None
        latest = max(entries, key=lambda match: int(match["number"]))
        return int(read_json(self.files, latest.string)["tokens"])

    def _commit_at(self, path: str) -> Commit | None:
        try:
            self.files.read(path)
        except FileNotFoundError:
            return None
        return self._read_commit(path)

    def _read_commit(self, path: str) -> Commit:
        if path not in self._commits:
            raw = read_json(self.files, path)
            try:
                self._commits[path] = Commit(**{name: raw[name] for name in Commit.__slots__})
            except KeyError as error:
                raise StoreError(f"{self.url}/{path} is corrupt: it has no {error}; restore it") from error
        return self._commits[path]


def _orphans(present: Iterable[str], commits: dict[int, Commit]) -> Iterable[str]:
    """Data files that no newest commit names and none ever will: their generation of the shard is decided."""
    named = {path for commit in commits.values() for path in commit.files.values()}
    for path in present:
        match = _DATA.fullmatch(path)
        if match and path not in named and int(match["generation"]) <= commits[int(match["shard"])].generation:
            yield path


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:SHOWN])) or "none"
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
