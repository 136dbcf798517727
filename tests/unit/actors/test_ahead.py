"""Drawing ahead of need: only where slots would idle, handed out in turn, cut when the question ends."""

import asyncio
import dataclasses

from actors.desk import Ask
from actors.session import QuestionSession
from pipeline.errors import BudgetDenied
from pipeline.records import Sample
from tests.factories import make_item, make_sample
from tests.unit.actors.test_session import KEY, SPEC, make_terms


class Worker:
    """Grants ``spare`` samples ahead; answers when told."""

    def __init__(self, spare: int) -> None:
        self.spare = spare
        self.asks: list[Ask] = []
        self.cancelled: list[str] = []
        self.journal: dict[tuple[str, int], Sample] = {}

    def session(self, most: int = 40) -> QuestionSession:
        terms = make_terms(SPEC, self.asks.append, self.cancelled.append, ahead=lambda model: self.spare)
        return QuestionSession(make_item(), 0, terms, self.journal, most=most)

    def start(self, ask: Ask) -> None:
        ask.request_id = f"r{ask.sample_index}"

    def pay(self, ask: Ask, **fields) -> None:
        sample = make_sample(index=ask.sample_index, prompt_key=ask.prompt_key)
        sample = dataclasses.replace(sample, **fields)
        self.journal[(ask.prompt_key, ask.sample_index)] = sample
        if not ask.paid.done():
            ask.paid.set_result(sample)


async def asked(worker: Worker, count: int) -> None:
    while len(worker.asks) < count:
        await asyncio.sleep(0)


async def test_what_is_drawn_ahead_bids_less_and_less_and_stays_under_the_maximum():
    worker = Worker(spare=5)
    task = asyncio.create_task(worker.session(most=3).sample(1, value=1.0))
    await asked(worker, 3)
    assert [(a.sample_index, a.bid, a.ahead) for a in worker.asks] == [(0, 1.0, False), (1, 0.5, True), (2, 0.25, True)]
    worker.pay(worker.asks[0])
    assert [s.sample_index for s in await task] == [0]


async def test_a_guaranteed_minimum_draws_nothing_ahead():
    worker = Worker(spare=5)
    task = asyncio.create_task(worker.session().sample(2, value=float("inf")))
    await asked(worker, 2)
    for ask in worker.asks:
        worker.pay(ask)
    await task
    assert [ask.sample_index for ask in worker.asks] == [0, 1]


async def test_a_sample_that_runs_already_is_not_asked_for_again():
    worker = Worker(spare=1)
    session = worker.session()
    first = asyncio.create_task(session.sample(1, value=1.0))
    await asked(worker, 2)
    for ask in worker.asks:
        worker.start(ask)
    worker.pay(worker.asks[0])
    await first
    worker.spare = 0
    second = asyncio.create_task(session.sample(1, value=1.0))
    await asyncio.sleep(0)
    assert len(worker.asks) == 2
    assert not worker.asks[1].ahead
    worker.pay(worker.asks[1])
    assert [s.sample_index for s in await second] == [1]


async def test_one_that_still_waits_is_asked_for_anew_at_the_full_bid():
    worker = Worker(spare=1)
    session = worker.session()
    first = asyncio.create_task(session.sample(1, value=1.0))
    await asked(worker, 2)
    worker.pay(worker.asks[0])
    await first
    worker.spare = 0
    second = asyncio.create_task(session.sample(1, value=0.8))
    await asked(worker, 3)
    assert worker.asks[1].paid.cancelled()
    assert (worker.asks[2].sample_index, worker.asks[2].bid) == (1, 0.8)
    worker.pay(worker.asks[2])
    await second


async def test_a_refusal_of_what_nobody_needs_is_not_the_question_s():
    worker = Worker(spare=1)
    session = worker.session()
    first = asyncio.create_task(session.sample(1, value=1.0))
    await asked(worker, 2)
    worker.asks[1].paid.set_exception(BudgetDenied(0.7))
    worker.pay(worker.asks[0])
    assert [s.sample_index for s in await first] == [0]
    worker.spare = 0
    second = asyncio.create_task(session.sample(1, value=1.0))
    await asked(worker, 3)
    worker.pay(worker.asks[2])
    assert [s.sample_index for s in await second] == [1]


async def test_the_end_of_a_question_cuts_what_runs_and_withdraws_what_waits():
    worker = Worker(spare=2)
    session = worker.session()
    first = asyncio.create_task(session.sample(1, value=1.0))
    await asked(worker, 3)
    worker.start(worker.asks[1])
    worker.pay(worker.asks[0])
    await first
    ending = asyncio.create_task(session.finish())
    await asyncio.sleep(0)
    assert worker.cancelled == ["r1"]
    assert not ending.done()  # what it cost is not known yet
    worker.pay(worker.asks[1], finish_reason="interrupted")
    await ending
    assert worker.asks[2].paid.cancelled()


async def test_a_cut_sample_has_no_place_in_the_vote_when_the_question_is_asked_again():
    worker = Worker(spare=0)
    for index, reason in enumerate(["stop", "interrupted", "stop"]):
        worker.journal[(KEY, index)] = make_sample(index=index, prompt_key=KEY, finish_reason=reason)
    drawn = await worker.session().sample(2, value=1.0)
    assert [s.sample_index for s in drawn] == [0, 2]
