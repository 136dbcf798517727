import asyncio
import dataclasses

import pytest

from actors.desk import Ask
from actors.engines.base import Prompt
from actors.session import QuestionSession, Terms
from actors.ways import asked as asked_as
from actors.ways import prompt_key
from budgets.cost import TOKENS
from budgets.experience import Lesson
from pipeline.errors import BudgetDenied, RequestRejected
from pipeline.records import Item, Message, Sample
from strategies.base import Draw
from tests.factories import make_item, make_sample, make_spec

SPEC = make_spec()
PROMPT = Prompt((1, 2, 3), "one two three")
KEY = prompt_key(SPEC, PROMPT, Draw(temperature=1.0))


class NoChecks:
    """No verifiers."""

    cost, worst_of = TOKENS, {}

    async def check(self, item, samples, verifier, seen):
        raise AssertionError("nothing to check here")

    def submit_check(self, check):
        raise AssertionError("nothing to check here")

    def log(self, shard_id, record):
        raise AssertionError("nothing was said")


def make_terms(spec, submit, cancel, **more) -> Terms:
    """Terms of a fake worker whose samples cost 12 tokens, and whose every prompt has three."""
    return Terms(spec, TOKENS, submit, cancel, lambda model: 12.0, lambda item, draw: PROMPT, NoChecks(), **more)


class Worker:
    """A fake worker: keeps asks, answers when told."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.cancelled: list[str] = []

    def terms(self) -> Terms:
        return make_terms(SPEC, self.asks.append, self.cancelled.append)

    def pay(self, index: int) -> None:
        ask = next(ask for ask in self.asks if ask.sample_index == index)
        ask.paid.set_result(make_sample(index=index, prompt_key=ask.prompt_key))

    def deny(self, index: int, price: float = 0.5) -> None:
        next(ask for ask in self.asks if ask.sample_index == index).paid.set_exception(BudgetDenied(price))


def make_session(worker: Worker, journal: list[Sample] = (), **fields) -> QuestionSession:
    paid = {(sample.prompt_key, sample.sample_index): sample for sample in journal}
    return QuestionSession(make_item(), 0, worker.terms(), paid, **fields)


async def asked(worker: Worker, count: int) -> None:
    while len(worker.asks) < count:
        await asyncio.sleep(0)


async def test_samples_come_in_index_order_whatever_finishes_first():
    worker = Worker()
    task = asyncio.create_task(make_session(worker).sample(3, value=1.0))
    await asked(worker, 3)
    for index in (2, 0, 1):
        worker.pay(index)
    assert [sample.sample_index for sample in await task] == [0, 1, 2]


async def test_the_journal_is_asked_before_the_desk():
    worker = Worker()
    session = make_session(worker, [make_sample(index=i, prompt_key=KEY) for i in (0, 1)])
    assert [sample.sample_index for sample in await session.sample(2, value=1.0)] == [0, 1]
    assert worker.asks == []
    task = asyncio.create_task(session.sample(1, value=1.0))
    await asked(worker, 1)
    assert worker.asks[0].sample_index == 2
    worker.pay(2)
    await task


async def test_a_sample_of_another_prompt_is_not_ours():
    worker = Worker()
    session = make_session(worker, [make_sample(index=0, prompt_key="other")])
    task = asyncio.create_task(session.sample(1, value=1.0))
    await asked(worker, 1)
    worker.pay(0)
    assert (await task)[0].prompt_key == KEY


async def test_partial_denial_returns_the_prefix_and_then_denies():
    worker = Worker()
    session = make_session(worker)
    task = asyncio.create_task(session.sample(3, value=1.0))
    await asked(worker, 3)
    worker.pay(0)
    worker.deny(1)
    worker.deny(2)
    assert [sample.sample_index for sample in await task] == [0]
    assert session.price == 0.5
    again = asyncio.create_task(session.sample(1, value=1.0))
    await asked(worker, 4)
    assert worker.asks[3].sample_index == 1
    worker.asks[3].paid.set_exception(BudgetDenied(0.7))
    with pytest.raises(BudgetDenied):
        await again


async def test_below_the_reopening_value_nothing_is_asked():
    worker = Worker()
    with pytest.raises(BudgetDenied):
        await make_session(worker, min_value=2.0).sample(1, value=1.0)
    assert worker.asks == []


async def test_what_is_paid_for_is_handed_out_below_the_reopening_value():
    worker = Worker()
    paid = [make_sample(index=index, prompt_key=KEY) for index in range(2)]
    session = make_session(worker, min_value=2.0, journal=paid)
    assert [sample.sample_index for sample in await session.sample(3, value=1.0)] == [0, 1]
    assert session.price == 2.0
    with pytest.raises(BudgetDenied):
        await session.sample(1, value=1.0)
    assert worker.asks == []


async def test_a_strategy_that_goes_away_aborts_what_runs_and_withdraws_what_waits():
    worker = Worker()
    task = asyncio.create_task(make_session(worker).sample(2, value=1.0))
    await asked(worker, 2)
    worker.asks[0].request_id = "running"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.cancelled == ["running"]
    assert all(ask.paid.cancelled() for ask in worker.asks)


async def test_the_worst_case_is_prompt_and_max_tokens():
    worker = Worker()
    task = asyncio.create_task(make_session(worker).sample(1, value=1.0))
    await asked(worker, 1)
    assert worker.asks[0].worst == 3 + 16
    worker.pay(0)
    await task


async def test_expected_tokens_move_from_the_datasets_mean_to_the_questions_own():
    worker = Worker()
    paid = [make_sample(index=i, prompt_key=KEY, completion_tokens=100) for i in range(30)]
    session = make_session(worker, paid)
    assert session.expected_tokens() == 12.0
    await session.sample(30, value=1.0)
    assert 90 < session.expected_tokens() < 100


def test_the_prompt_key_covers_what_shapes_a_sample():
    other_model = make_spec(model={"name": "another"})
    other_sampling = make_spec(sampling={"top_p": 0.5})
    budget = make_spec(budget={"tokens": 5})
    hot = Draw(temperature=1.0)
    ways = [
        Draw(temperature=0.5),
        Draw(temperature=1.0, top_p=0.5),
        Draw(temperature=1.0, min_p=0.1),
        Draw(temperature=1.0, max_tokens=4),
        Draw(temperature=1.0, prefix="So"),
        Draw(temperature=1.0, cut_below=1.5),
        Draw(temperature=1.0, group=8),
        Draw(temperature=1.0, group=8, cut_below=1.5),
    ]
    large = [
        {"large": {"name": "one"}},
        {"large": {"name": "two"}},
        {"large": {"name": "one", "revision": "r"}},
        {"large": {"name": "one", "tokenizer": "t"}},
        {"large": {"name": "one", "dtype": "float32"}},
        {"other": {"name": "one"}},
    ]
    further = {
        prompt_key(make_spec(models=models), PROMPT, Draw(temperature=1.0, model=name))
        for models in large
        for name in models
    }
    assert len(further) == len(large)
    assert prompt_key(make_spec(models=large[0]), PROMPT, hot) == KEY, "the main model's samples are what they were"
    keys = {
        KEY,
        prompt_key(SPEC, dataclasses.replace(PROMPT, text="else"), hot),
        prompt_key(other_model, PROMPT, hot),
        prompt_key(other_sampling, PROMPT, hot),
        *(prompt_key(SPEC, PROMPT, way) for way in ways),
    }
    assert not further & keys
    assert len(keys) == 4 + len(ways) - 1, "the job's top_p may be said by the job or by the draw"
    assert prompt_key(budget, PROMPT, hot) == KEY


async def test_rng_depends_on_seed_and_item_alone():
    first, second = make_session(Worker()), make_session(Worker())
    assert first.rng.random() == second.rng.random()


async def test_draws_of_several_kinds_run_side_by_side_and_are_numbered_each_by_itself():
    worker = Worker()
    session = make_session(worker)
    cold, hot = Draw(temperature=0.1), Draw(temperature=2.0)
    task = asyncio.create_task(session.sample_each([cold, hot, cold], value=1.0))
    await asked(worker, 3)
    assert [(ask.draw, ask.sample_index) for ask in worker.asks] == [(cold, 0), (hot, 0), (cold, 1)]
    for ask in reversed(worker.asks):
        ask.paid.set_result(make_sample(index=ask.sample_index, prompt_key=ask.prompt_key))
    keys = [(sample.prompt_key, sample.sample_index) for sample in await task]
    assert keys == [(ask.prompt_key, ask.sample_index) for ask in worker.asks]
    assert len({key for key, _ in keys}) == 2
    again = asyncio.create_task(session.sample(1, value=1.0, draw=hot))
    await asked(worker, 4)
    assert worker.asks[3].sample_index == 1
    again.cancel()


async def test_a_decision_is_made_once_and_kept():
    kept = []
    terms = make_terms(
        SPEC,
        [].append,
        [].append,
        decided=lambda *said: kept.append(said),
        experience=lambda: {("arm", "a"): Lesson(3)},
    )
    session = QuestionSession(make_item(), 4, terms, {})
    assert await session.decide("arm", lambda known: f"{known[('arm', 'a')].count} seen") == "3 seen"
    assert await session.decide("arm", lambda known: "another") == "3 seen"
    assert kept == [(4, "q1", "arm", "3 seen")]
    resumed = QuestionSession(make_item(), 4, terms, {}, decisions={"arm": "3 seen"})
    assert await resumed.decide("arm", lambda known: "another") == "3 seen"


async def test_of_what_is_learnt_of_one_subject_the_last_word_counts():
    session = QuestionSession(make_item(), 0, make_terms(SPEC, [].append, [].append), {})
    session.learn("arm", "a", 0.25, 7.0)
    session.learn("arm", "a", 0.5, 9.0)
    await session.finish()
    assert session.lessons == {("arm", "a"): Lesson(1, 0.5, 0.25, 9.0)}


def test_a_chat_is_asked_another_last_user_turn():
    turns = (Message("system", "s"), Message("user", "one"), Message("assistant", "a"), Message("user", "two"))
    item = Item("q", messages=turns)
    assert asked_as(item, None) is item
    assert asked_as(item, "three").messages == (*turns[:3], Message("user", "three"))
    assert asked_as(make_item(), "three").prompt == "three"
    with pytest.raises(RequestRejected, match="empty"):
        asked_as(item, "  ")
    with pytest.raises(RequestRejected, match="no user turn"):
        asked_as(Item("q", messages=turns[:1]), "three")
