"""Checks while a question is open: said once, paid once, reserved at their worst, durable."""

import asyncio
from dataclasses import replace

import pytest

from actors.checks import CHECK_CUT, Checks, with_verdict
from actors.desk import Check
from budgets.cost import CostModel
from pipeline.errors import BudgetDenied, StrategyError
from pipeline.records import Judged, Sample, Verdict
from tests.factories import make_item, make_sample

COST = CostModel(verifier={"dear": 2})


class Worker:
    """``CheckTerms`` that scores a sample by its index and keeps what is journalled."""

    cost, worst_of = COST, {"free": 0, "dear": 50}

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[int]]] = []
        self.desk: list[Check] = []
        self.journal: list[Judged] = []
        self.hold: asyncio.Event | None = None

    async def check(self, item, samples, verifier, seen):
        self.asked.append((verifier, [sample.sample_index for sample in samples]))
        if self.hold is not None:
            await self.hold.wait()
        return [Verdict(verifier, sample.sample_index / 10, tokens=self.worst_of[verifier] // 2) for sample in samples]

    def submit_check(self, check: Check) -> None:
        self.desk.append(check)

    def log(self, shard_id: int, record: Judged) -> None:
        assert shard_id == 7
        self.journal.append(record)

    def checks(self) -> Checks:
        return Checks(make_item(), 7, self, "w0")


def samples(count: int) -> list[Sample]:
    return [make_sample(index=index, answer=str(index)) for index in range(count)]


async def on_desk(worker: Worker, count: int = 1) -> Check:
    while len(worker.desk) < count:
        await asyncio.sleep(0)
    return worker.desk[-1]


async def test_a_free_check_is_made_at_once_and_journalled():
    worker = Worker()
    verdicts = await worker.checks().verify(samples(2), "free", 1.0, [])
    assert [verdict.score for verdict in verdicts] == [0.0, 0.1]
    assert worker.desk == []
    assert worker.journal == [Judged("q1", "k", index, (verdicts[index],), "w0") for index in (0, 1)]


async def test_what_the_journal_says_is_not_asked():
    worker = Worker()
    first, second = samples(2)
    first = with_verdict(first, Verdict("free", 1.0))
    verdicts = await worker.checks().verify([first, second], "free", 1.0, [])
    assert [verdict.score for verdict in verdicts] == [1.0, 0.1]
    assert worker.asked == [("free", [1])]


async def test_a_check_given_other_words_is_another_check():
    worker = Worker()
    checks = worker.checks()
    [sample] = samples(1)
    key = replace(make_item(), given=("a",)).given_key
    sample = with_verdict(with_verdict(sample, Verdict("free", 1.0, given=key)), Verdict("free", 0.5))
    assert [one.score for one in await checks.verify([sample], "free", 1.0, [], ["a"])] == [1.0]
    assert [one.score for one in await checks.verify([sample], "free", 1.0, [])] == [0.5]
    assert worker.asked == []
    assert [one.score for one in await checks.verify([sample], "free", 1.0, [], ["b"])] == [0.0]
    assert worker.asked == [("free", [0])]
    assert [one.score for one in with_verdict(sample, Verdict("free", 0.2, given=key)).verdicts] == [0.5, 0.2]


async def test_a_check_that_costs_waits_at_the_desk_with_its_worst():
    worker = Worker()
    checks = worker.checks()
    assert checks.expected("dear") == 100.0
    task = asyncio.create_task(checks.verify(samples(2), "dear", 0.5, []))
    check = await on_desk(worker)
    assert (check.bid, check.worst) == (0.5, 2 * 50 * 2)
    assert worker.asked == []
    check.paid.set_result(await check.run())
    assert [verdict.tokens for verdict in await task] == [25, 25]
    assert [record.sample_index for record in worker.journal] == [0, 1]
    # Two checks of 50 units and a prior of two at 100.
    assert checks.expected("dear") == 75.0


async def test_a_refused_check_is_the_strategys_to_handle():
    worker = Worker()
    task = asyncio.create_task(worker.checks().verify(samples(1), "dear", 0.5, []))
    (await on_desk(worker)).paid.set_exception(BudgetDenied(0.7))
    with pytest.raises(BudgetDenied):
        await task
    assert (worker.asked, worker.journal) == ([], [])


async def test_a_check_that_is_cut_has_cost_its_worst_and_is_made_again():
    worker = Worker()
    worker.hold = asyncio.Event()
    task = asyncio.create_task(worker.checks().verify(samples(1), "dear", 0.5, []))
    check = await on_desk(worker)
    running = asyncio.create_task(check.run())
    while not worker.asked:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [record.verdicts for record in worker.journal] == [(Verdict("dear", error=CHECK_CUT, tokens=50),)]
    task.cancel()
    resumed = replace(samples(1)[0], verdicts=worker.journal[0].verdicts)
    again = asyncio.create_task(worker.checks().verify([resumed], "dear", 0.5, []))
    assert (await on_desk(worker, 2)).worst == 100
    again.cancel()


async def test_a_strategy_that_goes_away_withdraws_what_waits():
    worker = Worker()
    task = asyncio.create_task(worker.checks().verify(samples(1), "dear", 0.5, []))
    check = await on_desk(worker)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert check.paid.cancelled()


async def test_a_verifier_the_job_does_not_have():
    with pytest.raises(StrategyError, match="no verifier called 'other'"):
        await Worker().checks().verify(samples(1), "other", 1.0, [])
