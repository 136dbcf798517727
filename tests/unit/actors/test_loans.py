"""Loans between two workers' insides over one store: questions move, and nothing else changes."""

import asyncio
from collections import Counter
from collections.abc import Callable

from actors.engines.scripted import ScriptedEngine
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from budgets.market import Market
from budgets.messages import Reply, WorkerReport
from pipeline.errors import EngineError
from pipeline.spec import JobSpec
from pipeline.spending import spent_by_life
from tests.unit.actors.test_station import ALL, begin, ids, make_job, outcome, spent

SLOW = {"max_num_seqs": 2, "options": {"seconds": 0.01}}


class MortalEngine(ScriptedEngine):
    """Dies, as an engine core does, once ``doomed`` says so of its finished samples."""

    def __init__(self, spec: JobSpec, doomed: Callable[[int], bool] = lambda finished: False) -> None:
        super().__init__(spec)
        self.finished, self.doomed = 0, doomed

    async def generate(self, request):
        if self.doomed(self.finished):
            raise EngineError("the engine core died")
        completion = await super().generate(request)
        self.finished += 1
        return completion


def make_slow_job(folder, **sections) -> JobSpec:
    """One shard of twenty questions, so that a second worker has nothing of its own."""
    spec = make_job(folder, model=SLOW, **sections)
    return spec.model_copy(update={"cluster": spec.cluster.model_copy(update={"shard_size": 20})})


class Crew:
    """Stations against one market; those that die are replaced, as the driver does it."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec, self.store = spec, begin(spec)
        self.shards = {shard.shard_id: shard for shard in self.store.read_plan()}
        self.market: Market = restore_market(self.store, spec.budget.tokens, list(self.shards.values()))
        self.judge = RuleJudge(spec)
        self.lent: dict[str, tuple[str, ...]] = {}
        self.borrowers: set[str] = set()
        self.gone: set[str] = set()
        self.first_leased = asyncio.Event()
        self.engine: type[ScriptedEngine] = ScriptedEngine

    async def sync(self, report: WorkerReport) -> Reply:
        for lent in report.lent:
            if lent.items:
                self.lent[lent.loan_id] = lent.items
        reply = self.market.sync(report)
        self.borrowers |= {report.worker for loan in reply.borrow if not loan.dropped}
        if reply.open_shards:
            self.first_leased.set()
            if self.gone:
                assert not self.market._loans.withholds(0), "leased while somebody still draws for it"
        return reply

    async def live(self, life: str, engine: ScriptedEngine) -> None:
        """One life to its end; where it dies, the next one follows with a sound engine."""
        try:
            await Station(self.spec, self.shards, engine, self.store, self.judge, life).run(self.sync)
        except EngineError:
            self.gone.add(life)
            self.store.record_death(life)
            self.market.worker_lost(life, spent_by_life(self.store).get(life, 0))
            await self.live(f"{life}x", self.engine(self.spec))

    async def work(self, lender: ScriptedEngine, borrower: ScriptedEngine) -> None:
        """``w-0`` holds the shard before ``w-1`` comes."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.live("w-0", lender))
                await asyncio.wait_for(self.first_leased.wait(), 30)
                group.create_task(self.live("w-1", borrower))
        finally:
            await self.judge.close()


def answers_of(rows: list[dict]) -> dict[str, tuple]:
    """What may not depend on who drew the samples."""
    return {row["item_id"]: (row["answer"], row["stop_reason"], row["votes"]) for row in rows}


def drawn_twice(crew: Crew) -> list:
    """Samples paid more than once; every journalled row is read, repetitions included."""
    table = [
        (sample.item_id, sample.prompt_key, sample.sample_index)
        for path in crew.store.files.list("journal")
        if path.endswith(".parquet")
        for sample in crew.store._journal._read_samples(path)
    ]
    return [key for key, count in Counter(table).items() if count > 1]


async def alone(folder) -> dict[str, tuple]:
    """The same job by one worker, without loans."""
    folder.mkdir()
    crew = Crew(make_slow_job(folder))
    await crew.live("w-0", ScriptedEngine(make_job(folder)))
    await crew.judge.close()
    return answers_of(outcome(crew.spec)[0])


async def test_an_idle_worker_takes_over_and_the_answers_are_the_same(tmp_path):
    crew = Crew(make_slow_job(tmp_path))
    await crew.work(ScriptedEngine(crew.spec), ScriptedEngine(crew.spec))
    answers, samples, dead = outcome(crew.spec)
    assert crew.lent
    assert (ids(answers), dead) == (ALL, [])
    lent = {name for items in crew.lent.values() for name in items}
    drawn_elsewhere = {s["item_id"] for s in samples if s["writer"] == "w-1"}
    assert drawn_elsewhere
    assert drawn_elsewhere <= lent
    assert drawn_twice(crew) == []
    assert answers_of(answers) == await alone(tmp_path / "alone")
    assert crew.market.ledger.spent == spent(crew.spec) == sum(a["tokens"] for a in answers)
    assert crew.market.ledger.reserved == 0


async def test_what_a_dead_borrower_drew_is_kept_and_the_rest_is_asked_again(tmp_path):
    crew = Crew(make_slow_job(tmp_path))
    await crew.work(ScriptedEngine(crew.spec), MortalEngine(crew.spec, lambda finished: finished >= 4))
    answers, samples, dead = outcome(crew.spec)
    assert crew.gone == {"w-1"}
    assert crew.borrowers >= {"w-1"}
    assert sum(s["writer"] == "w-1" for s in samples) in (4, 5), "another may land while the engine dies"
    assert (ids(answers), dead) == (ALL, [])
    assert drawn_twice(crew) == []
    assert answers_of(answers) == await alone(tmp_path / "alone")
    assert crew.market.ledger.spent == spent(crew.spec)


async def test_a_borrower_lets_go_before_a_dead_lenders_shard_opens_again(tmp_path):
    crew = Crew(make_slow_job(tmp_path))
    borrower = MortalEngine(crew.spec)
    lender = MortalEngine(crew.spec, lambda finished: borrower.finished >= 3)
    await crew.work(lender, borrower)
    answers, samples, dead = outcome(crew.spec)
    assert crew.gone == {"w-0"}
    assert crew.borrowers >= {"w-1"}
    assert (ids(answers), dead) == (ALL, [])
    assert drawn_twice(crew) == []
    # What the borrower was made to cut is nobody's choice: it holds no place in a vote.
    assert {
        (s["finish_reason"], s["writer"]) for s in samples if s["finish_reason"] not in {"stop", "interrupted"}
    } == set()
    assert crew.market.ledger.spent == spent(crew.spec)
    assert crew.market.ledger.reserved == 0


async def test_a_question_that_kills_its_borrower_is_a_suspect_at_its_lender(tmp_path):
    """Attempts count whoever made them, so the last try is the third of all, and nothing else is set aside."""
    crew = Crew(make_slow_job(tmp_path))

    def poison() -> str | None:
        return next(iter(crew.lent.values()))[-1] if crew.lent else None

    class PoisonedEngine(ScriptedEngine):
        async def generate(self, request):
            if request.item_id == poison():
                raise EngineError("the engine core died")
            return await super().generate(request)

    crew.engine = PoisonedEngine
    await crew.work(PoisonedEngine(crew.spec), PoisonedEngine(crew.spec))
    answers, _, dead = outcome(crew.spec)
    assert [(row["item_id"], row["attempts"]) for row in dead] == [(poison(), crew.spec.cluster.max_attempts)]
    assert len(crew.gone) == crew.spec.cluster.max_attempts
    assert "w-1" in crew.gone
    assert ids(answers) == [name for name in ALL if name != poison()]


async def test_a_deadline_ends_loans_at_once(tmp_path):
    crew = Crew(make_slow_job(tmp_path))
    sync = crew.sync

    async def expiring(report: WorkerReport) -> Reply:
        if any(not borrowed.returned for borrowed in report.borrowed):
            crew.market.expire()
        return await sync(report)

    crew.sync = expiring
    await crew.work(ScriptedEngine(crew.spec), ScriptedEngine(crew.spec))
    answers, _, dead = outcome(crew.spec)
    assert crew.market.snapshot().expired
    assert (ids(answers), dead) == (ALL, [])
    assert "exhausted" in {answer["stop_reason"] for answer in answers}
    assert drawn_twice(crew) == []
    assert crew.market.ledger.spent == spent(crew.spec)
