"""The run directory: one run, exactly once.

Promises: an item's committed output appears once, whatever crashes or races; a reader sees the files named by each
shard's newest commit and no others; ``_SUCCESS.json`` exists only if inputs = answered ⊎ dead-lettered, checked on the
committed files themselves; budgets, rules, plan, samples and attempts are durable when their call returns. A finished
run may be selected again by another rule (``reselect``), which makes it unfinished until every shard is answered by it.
Owns every name in the directory (with ``journal`` and ``commits``). May not rename or copy, may not delete what it did
not write before ``_SUCCESS.json``, and stores neither secrets nor pickles. All methods are synchronous and safe in
threads.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from budgets.cost import Usage
from budgets.experience import Lessons
from pipeline.budget_spec import BudgetSpec, budget_units, cost_model
from pipeline.commits import Commit, CommitOutcome, Commits, orphans, some
from pipeline.errors import RunMismatch, StoreError, UsageError
from pipeline.filesystem import Files, open_files
from pipeline.fingerprint import RULE, changed_sections, mismatch
from pipeline.journal import Journal, checked, decode, encode, in_parallel, parse_json, read_json
from pipeline.records import Answer, DeadLetter, Decided, Decision, Judged, Sample, Shard, from_row

FORMAT = 1
"""Version of the directory's layout; a reader refuses one it does not know."""

RUN, PLAN, SUCCESS = "run.json", "plan/shards.parquet", "_SUCCESS.json"

_DEATH = re.compile(r"deaths/(?P<writer>.+)\.json")
_BUDGET = re.compile(r"budget/(?P<number>\d+)\.json")
_RULE = re.compile(r"rules/(?P<number>\d+)\.json")


class Plan(Protocol):
    """What ``write_plan`` needs of a dataset's plan: its shards, and how many items they hold together."""

    @property
    def shards(self) -> Sequence[Shard]: ...

    @property
    def items(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The resolved ``job``, its ``fingerprint``, and when the run was created (ISO 8601, UTC).

    As ``run.json`` has them, with the strategy of the newest ``rule``: 0 is that of ``run.json``, n of ``rules/<n>``.
    """

    format: int
    run_id: str
    job: dict[str, Any]
    fingerprint: dict[str, str]
    created_at: str
    rule: int = 0


@dataclass(frozen=True, slots=True)
class Begin:
    """What ``begin`` found: ``resumed`` where the run was there already.

    ``reselects``: it is finished, and the job asks for another rule over its samples; call ``Store.reselect``.
    """

    info: RunInfo
    resumed: bool
    reselects: bool = False


class Store:
    """One run directory. Each process opens its own by URL; a store holds connections and is not sent between them."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._journal = Journal(files)
        self._commits = Commits(files)

    @staticmethod
    def open(url: str) -> Store:
        """The store at ``url`` (local path or ``s3://bucket/prefix``). No I/O; UsageError for any other scheme."""
        return Store(open_files(url))

    @property
    def url(self) -> str:
        """The directory, as an absolute path or ``s3://bucket/prefix``."""
        return self.files.url

    # --- the run -------------------------------------------------------------------------------------------------

    def begin(self, job: dict[str, Any], fingerprint: dict[str, str], created_at: datetime | None = None) -> Begin:
        """Create the run, or find the one that is there. Of racing callers one creates, the others resume.

        A run that is found is not changed.

        Raises:
            RunMismatch: another run is there; the message holds the diff of the jobs. Another strategy alone is
                no other run once the run is finished.
            UsageError: the directory holds something that is no run.
        """
        found = self._find_run()
        if found is None:
            # Looked for again after listing: another driver may have begun the run in between.
            if self.files.list("") and self._find_run() is None:
                raise UsageError(f"output {self.url}: not empty, yet holds no {RUN}; name an empty or new directory")
            created = (created_at or datetime.now(UTC)).astimezone(UTC).isoformat()
            info = RunInfo(FORMAT, str(uuid.uuid4()), job, fingerprint, created)
            record = {name: value for name, value in asdict(info).items() if name != "rule"}
            if self.files.create(RUN, _dump(record)):
                return Begin(info, resumed=False)
            found = self.run_info()
        changed = changed_sections(found.fingerprint, fingerprint)
        if not changed:
            return Begin(found, resumed=True)
        if changed == [RULE] and self.finished() is not None:
            return Begin(found, resumed=True, reselects=True)
        raise mismatch(self.url, found.job, job, changed)

    def reselect(self, job: dict[str, Any], fingerprint: dict[str, str]) -> None:
        """Make the job's strategy the run's newest rule, durably; from then on the run is not ``finished``.

        Nothing where it is the newest already. Of racing callers the first wins.

        Raises:
            RunMismatch: the run is not finished, or more than the strategy is another.
        """
        while changed := changed_sections((info := self.run_info()).fingerprint, fingerprint):
            # Where another was first meanwhile, it is looked at anew: its rule may be ours.
            if (changed != [RULE] or self.finished() is None) and self._newest_rule() == info.rule:
                raise mismatch(self.url, info.job, job, changed)
            record = {
                "strategy": job["strategy"],
                "digest": fingerprint[RULE],
                "created_at": datetime.now(UTC).isoformat(),
                "id": uuid.uuid4().hex,
            }
            self.files.create(f"rules/{info.rule + 1:06d}.json", _dump(record))

    def rule_of(self, strategy: dict[str, Any]) -> int:
        """Number of the newest rule, which must be ``strategy``, a job's section.

        Raises:
            StoreError: the newest rule is another: a driver that began later selects the run by it.
        """
        info = self.run_info()
        if info.job.get("strategy") != strategy:
            raise StoreError(f"{self.url}: another command selects this run by rule {info.rule} now; let it finish")
        return info.rule

    def run_info(self) -> RunInfo:
        """Raises UsageError where there is no run."""
        info = self._find_run()
        if info is None:
            raise UsageError(f"no run at {self.url}: it has no {RUN}; check the path")
        return info

    def set_budget(self, budget: BudgetSpec | int) -> None:
        """Record a budget durably, unless it is the latest already. The history stays in ``budget/``.

        ``budget``: the job's section, or tokens.

        Raises:
            RunMismatch: the run's budget is counted in another unit; ledger and bids of the two cannot be compared.
        """
        found = BudgetSpec(tokens=budget) if isinstance(budget, int) else budget
        created = False
        while not created:
            latest = self._recorded_budget()
            if latest == found:
                return
            refuse_other_unit(self.url, latest or self.budget_spec(), found)
            number = 1 + max((int(match["number"]) for match in self._budget_entries()), default=0)
            section = found.model_dump(mode="json", exclude_defaults=True)
            created = self.files.create(f"budget/{number:06d}.json", _dump({**section, "id": uuid.uuid4().hex}))

    def budget(self) -> int:
        """The budget recorded last, in units of the ledger: tokens, where it is written in tokens."""
        return budget_units(self.budget_spec())

    def budget_spec(self) -> BudgetSpec:
        """The budget recorded last, as it was written; before the first ``set_budget``, the one of the job."""
        return self._recorded_budget() or self._budget_in(self.run_info().job["budget"], RUN)

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

    def planned(self) -> bool:
        """True once a plan is written."""
        return PLAN in self.files.list("plan")

    # --- the journal ---------------------------------------------------------------------------------------------

    def journal(self, shard_id: int, samples: Sequence[Sample], writer: str, seq: int) -> None:
        """Make samples durable. See ``Journal.append``."""
        self._journal.append(shard_id, samples, writer, seq)

    def note(self, shard_id: int, records: Sequence[Judged] | Sequence[Decided], writer: str, seq: int) -> None:
        """See ``Journal.note``."""
        self._journal.note(shard_id, records, writer, seq)

    def decided(self, shard_id: int) -> dict[str, dict[str, str]]:
        """Item id → name → what was decided. See ``Journal.decisions``."""
        return self._journal.decisions(shard_id)

    def read_journal(self, shard_id: int) -> list[Sample]:
        """The shard's samples without repetition. See ``Journal.read``."""
        return self._journal.read(shard_id)

    def journal_usage(self) -> dict[str, Usage]:
        """Writer → tokens journalled by class, repetitions included. See ``Journal.usage``."""
        return self._journal.usage()

    def record_attempts(self, shard_id: int, item_ids: Sequence[str], writer: str, seq: int) -> None:
        """Before dispatch: these items are in flight in this writer's life."""
        self._journal.mark("attempts", shard_id, item_ids, writer, seq)

    def release_attempts(self, shard_id: int, item_ids: Sequence[str], writer: str, seq: int) -> None:
        """These items finished, or were given back cleanly. ``seq`` continues that of ``record_attempts``."""
        self._journal.mark("released", shard_id, item_ids, writer, seq)

    def attempts(self, shard_id: int, dead_writers: AbstractSet[str] | None = None) -> dict[str, int]:
        """Item id → worker lives that ended with it in flight. See ``Journal.attempts``."""
        return self._journal.attempts(shard_id, dead_writers)

    def record_death(self, writer: str) -> None:
        """This worker life ended by itself, its driver looking on: what it had in flight counts as attempted."""
        self.files.create(f"deaths/{checked(writer)}.json", _dump({"writer": writer}))

    def deaths(self) -> set[str]:
        """Worker lives recorded as dead."""
        return {match["writer"] for path in self.files.list("deaths") if (match := _DEATH.fullmatch(path))}

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
        rule: int = 0,
        lessons: Lessons = (),
    ) -> CommitOutcome:
        """Make a shard's rows visible, all at once, unless this generation is committed already.

        Data files first, then the commit object, which the first writer creates; a loser deletes its own files. A
        generation replaces the one before, so it holds all rows of the shard. ``rule``: what ``rule_of`` said before
        the shard's questions were asked; generations count from 0 under each rule. ``lessons``: what they taught.

        Raises:
            StoreError: an item is in the rows twice, or a write failed. Nothing of ours is visible then, unless it was
                the answer to the last write that got lost: commit again to learn which.
        """
        rows = {"answers": answers, "samples": samples, "decisions": decisions, "dead_letters": dead_letters}
        return self._commits.commit(shard_id, generation, rows, writer, rule, lessons)

    def commits(self) -> dict[int, Commit]:
        """Shard id → its newest committed generation."""
        return self._commits.newest()

    # --- the end -------------------------------------------------------------------------------------------------

    def finish(self, summary: dict[str, Any]) -> None:
        """Check that inputs = answered ⊎ dead-lettered, write ``_SUCCESS.json``, then collect orphaned data files.

        ``summary`` is stored as given, with ``items``, ``answered`` and ``dead_lettered`` as counted here, and the
        number of the ``rule``, unless that is the job's own.

        Raises:
            StoreError: the check failed; the message names shards or ids. Nothing was written or deleted.
        """
        plan, rule = self.read_plan(), self._newest_rule()
        commits = self.commits()
        older = [shard_id for shard_id, commit in sorted(commits.items()) if commit.rule != rule]
        if older:
            raise StoreError(
                f"{self.url} is not complete: shards not answered by rule {rule} yet: {some(older)}; "
                "run the same command again"
            )
        # Listed before success: a file written later is not ours to judge.
        present = self._commits.data_files()
        self._commits.check_complete(plan, commits, present)
        counted = {
            "items": sum(shard.items for shard in plan),
            "answered": sum(commit.rows["answers"] for commit in commits.values()),
            "dead_lettered": sum(commit.rows["dead_letters"] for commit in commits.values()),
        }
        self.files.put(SUCCESS, _dump({**summary, **counted, **({"rule": rule} if rule else {})}))
        in_parallel(self.files.delete, orphans(present, commits))

    def finished(self) -> dict[str, Any] | None:
        """What ``finish`` wrote for the newest rule, or None."""
        try:
            found = parse_json(self.files, SUCCESS, self.files.read(SUCCESS))
        except FileNotFoundError:
            return None
        return found if found.get("rule", 0) == self._newest_rule() else None

    def reopen(self) -> None:
        """A top-up or another selection begins: the run is no longer finished. Call it before spending."""
        self.files.delete(SUCCESS)

    def _find_run(self) -> RunInfo | None:
        try:
            raw = parse_json(self.files, RUN, self.files.read(RUN))
        except FileNotFoundError:
            return None
        if raw.get("format") != FORMAT:
            raise UsageError(f"{self.url}/{RUN}: format {raw.get('format')!r}, but this version reads {FORMAT}")
        try:
            info = RunInfo(**{name: raw[name] for name in RunInfo.__slots__ if name != "rule"})
        except KeyError as error:
            raise StoreError(f"{self.url}/{RUN} is corrupt: it has no {error}; restore it") from error
        return self._selected(info, self._newest_rule())

    def _selected(self, info: RunInfo, rule: int) -> RunInfo:
        """``run.json`` with the strategy of a later rule in place of its own."""
        if not rule:
            return info
        path = f"rules/{rule:06d}.json"
        record = read_json(self.files, path)
        try:
            job = {**info.job, "strategy": record["strategy"]}
            return replace(info, job=job, fingerprint={**info.fingerprint, RULE: record["digest"]}, rule=rule)
        except KeyError as error:
            raise StoreError(f"{self.url}/{path} is corrupt: it has no {error}; restore it") from error

    def _newest_rule(self) -> int:
        numbers = [int(match["number"]) for path in self.files.list("rules") if (match := _RULE.fullmatch(path))]
        return max(numbers, default=0)

    def _budget_entries(self) -> list[re.Match[str]]:
        return [match for path in self.files.list("budget") if (match := _BUDGET.fullmatch(path))]

    def _recorded_budget(self) -> BudgetSpec | None:
        entries = self._budget_entries()
        if not entries:
            return None
        latest = max(entries, key=lambda match: int(match["number"]))
        return self._budget_in(read_json(self.files, latest.string), latest.string)

    def _budget_in(self, section: dict[str, Any], path: str) -> BudgetSpec:
        try:
            return BudgetSpec.model_validate({name: value for name, value in section.items() if name != "id"})
        except ValidationError as error:
            raise StoreError(f"{self.url}/{path} is corrupt: it holds no budget: {error}; restore it") from error


def refuse_other_unit(url: str, old: BudgetSpec, new: BudgetSpec) -> None:
    """Raise RunMismatch unless both budgets of a run are written and counted in one unit."""
    units = [(budget.kind, cost_model(budget).unit) for budget in (old, new)]
    if units[0] != units[1]:
        (had, counted), (asked, counts) = units
        raise RunMismatch(
            f"output {url}: its budget is budget.{had}, counted in {counted}s; budget.{asked}, counted in {counts}s "
            f"here, cannot go on from it: write it as budget.{had} with a price of the same form, or name another "
            "output"
        )


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
