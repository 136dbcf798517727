"""The pool over fake members that hang, crash, lie and come back; and the panel that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from actors.judge import Column, Panel, RuleJudge
from actors.verifier_pool import CheckPool, MemberDied, ProcessDied, Request
from pipeline.errors import StrategyError, VerifierError
from pipeline.records import Item, Sample, Verdict
from tests.factories import make_item, make_sample, make_spec
from verifiers.pool_policy import Member, PoolLimits

ITEM = make_item(reference="1")
LIMITS = PoolLimits(batch_samples=8, wait_seconds=0.0, member_batches=2, queue_samples=64, grow_seconds=0.0)


class Fakes:
    """Members whose behaviour is in the text of the samples."""

    def __init__(self, revives: bool = True, starts: bool = True) -> None:
        self.revives, self.starts = revives, starts
        self.calls: list[tuple[Member, list[int]]] = []
        self.ended: list[Member] = []
        self.dismissed: list[Member] = []
        self.started = 0
        self.hold: asyncio.Event | None = None
        self.busy = self.busiest = 0

    async def call(self, member: Member, requests: Sequence[Request]) -> list[list[Verdict]]:
        self.calls.append((member, [len(request.samples) for request in requests]))
        self.busy += sum(len(request.samples) for request in requests)
        self.busiest = max(self.busiest, self.busy)
        try:
            if self.hold is not None:
                await self.hold.wait()
            await asyncio.sleep(0)
            return [await self._one(request) for request in requests]
        finally:
            self.busy -= sum(len(request.samples) for request in requests)

    async def _one(self, request: Request) -> Any:
        texts = {sample.text for sample in request.samples}
        if "hang" in texts:
            await asyncio.Event().wait()
        if "crash" in texts:
            raise MemberDied("killed")
        if "raise" in texts:
            raise VerifierError("its backend is gone")
        if "lie" in texts:
            return [Verdict("fake", 1.0)]
        return [Verdict("fake", float(sample.answer == request.item.reference)) for sample in request.samples]

    async def end(self, member: Member) -> None:
        self.ended.append(member)

    async def revive(self, member: Member) -> bool:
        await asyncio.sleep(0)
        return self.revives

    async def start(self) -> Member | None:
        await asyncio.sleep(0)
        if not self.starts:
            return None
        self.started += 1
        return f"started-{self.started}"

    async def dismiss(self, member: Member) -> None:
        self.dismissed.append(member)


def request(*texts: str, item: Item = ITEM) -> Request:
    return Request(0, item, tuple(make_sample(index=i, text=text, answer="1") for i, text in enumerate(texts)))


def pool(
    fakes: Fakes, members: Sequence[Member] = ("m",), limits: PoolLimits = LIMITS, seconds: float = 60
) -> CheckPool:
    return CheckPool(fakes, members, limits, seconds)


RIGHT = Verdict("fake", 1.0)


async def test_many_questions_share_batches() -> None:
    fakes = Fakes()
    checks = pool(fakes)
    replies = await asyncio.gather(*(checks.check(request("a", "b")) for _ in range(40)))
    assert replies == [[RIGHT, RIGHT]] * 40
    stats = checks.stats()
    assert (stats.checks, stats.samples, stats.queued, stats.running) == (40, 80, 0, 0)
    assert stats.largest_batch == 8
    assert stats.batches < 40
    await checks.close()


async def test_askers_wait_while_the_queue_is_full() -> None:
    fakes = Fakes()
    fakes.hold = asyncio.Event()
    checks = pool(fakes)
    asking = [asyncio.create_task(checks.check(request("a", "b"))) for _ in range(200)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert checks.stats().queued <= LIMITS.queue_samples
    assert fakes.busiest <= LIMITS.batch_samples * LIMITS.member_batches
    fakes.hold.set()
    assert await asyncio.gather(*asking) == [[RIGHT, RIGHT]] * 200
    assert checks.stats().longest_queue <= LIMITS.queue_samples
    await checks.close()


@pytest.mark.parametrize("revives", [True, False])
async def test_a_crashing_check_takes_only_itself(revives: bool) -> None:
    fakes = Fakes(revives)
    checks = pool(fakes, ("m", "n"))
    texts = ["a", "b", "crash", "c", "d", "e"]
    replies = await asyncio.gather(*(checks.check(request(text)) for text in texts), return_exceptions=True)
    assert [reply for index, reply in enumerate(replies) if index != 2] == [[RIGHT]] * 5
    assert isinstance(replies[2], ProcessDied)
    assert checks.stats().given_up == 1
    await checks.close()


async def test_a_hanging_member_is_ended_and_the_check_given_up() -> None:
    fakes = Fakes()
    checks = pool(fakes, seconds=0.01)
    hanging, fine = await asyncio.gather(
        checks.check(request("hang")), checks.check(request("a")), return_exceptions=True
    )
    assert isinstance(hanging, VerifierError)
    assert not isinstance(hanging, ProcessDied)
    assert fine == [RIGHT]
    assert fakes.ended == ["m"] * LIMITS.attempts
    await checks.close()


@pytest.mark.parametrize(("text", "error"), [("lie", "broke its contract"), ("raise", "its backend is gone")])
async def test_a_member_that_lies_or_raises_is_not_asked_again(text: str, error: str) -> None:
    fakes = Fakes()
    checks = pool(fakes)
    with pytest.raises(VerifierError, match=error):
        await checks.check(request(text, "a"))
    assert len(fakes.calls) == 1
    assert await checks.check(request("a")) == [RIGHT]
    await checks.close()


async def test_lost_members_are_replaced_and_without_any_nothing_stalls() -> None:
    fakes = Fakes(revives=False)
    checks = pool(fakes)
    crash, fine = await asyncio.gather(
        checks.check(request("crash")), checks.check(request("a")), return_exceptions=True
    )
    assert isinstance(crash, ProcessDied)
    assert fine == [RIGHT]
    assert fakes.dismissed[0] == "m"
    await checks.close()
    none = pool(Fakes(starts=False), ())
    with pytest.raises(VerifierError, match="no verifier process can be had"):
        await none.check(request("a"))
    await none.close()


async def test_the_pool_grows_with_its_queue() -> None:
    fakes = Fakes()
    fakes.hold = asyncio.Event()
    limits = PoolLimits(least=1, most=3, batch_samples=8, wait_seconds=0.0, member_batches=1, grow_seconds=0.0)
    checks = pool(fakes, limits=limits)
    asking = [asyncio.create_task(checks.check(request("a", "b"))) for _ in range(20)]
    while fakes.started < 2:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    fakes.hold.set()
    await asyncio.gather(*asking)
    assert {member for member, _ in fakes.calls} == {"m", "started-1", "started-2"}
    assert fakes.started == 2
    await checks.close()


async def test_a_cancelled_check_leaves_the_queue() -> None:
    fakes = Fakes()
    fakes.hold = asyncio.Event()
    checks = pool(fakes)
    first = [asyncio.create_task(checks.check(request(*["a"] * 8))) for _ in range(2)]
    last = asyncio.create_task(checks.check(request("a")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert checks.stats().queued == 1
    last.cancel()
    await asyncio.wait([last])
    assert checks.stats().queued == 0
    fakes.hold.set()
    await asyncio.gather(*first)
    assert sum(sum(sizes) for _, sizes in fakes.calls) == 16
    await checks.close()


async def test_close_fails_all_that_is_open_and_leaves_no_task() -> None:
    fakes = Fakes()
    fakes.hold = asyncio.Event()
    before = asyncio.all_tasks()
    checks = pool(fakes)
    asking = [asyncio.create_task(checks.check(request("a", "b"))) for _ in range(60)]
    for _ in range(5):
        await asyncio.sleep(0)
    await checks.close()
    await checks.close()
    replies = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(reply) for reply in replies] == ["the verifier pool was closed"] * 60
    assert asyncio.all_tasks() == before


class Counting:
    """A column's work: remembers what it was asked, charges three tokens a sample."""

    def __init__(self, fails: int = 0) -> None:
        self.asked: list[list[int]] = []
        self.fails = fails

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        self.asked.append([sample.sample_index for sample in samples])
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise VerifierError("not now")
        return [Verdict("c", float(sample.answer == item.reference), tokens=3) for sample in samples]


def draws(*answers: str) -> list[Sample]:
    return [make_sample(index=index, answer=answer, text=f"{index}") for index, answer in enumerate(answers)]


async def test_equal_answers_are_checked_and_paid_once() -> None:
    by_answer, by_text = Counting(), Counting()
    panel = Panel([Column("a", True, by_answer), Column("t", False, by_text)])
    samples = draws("1", "2", "1")
    verdicts = await panel.finish(ITEM, samples)
    assert by_answer.asked == [[0, 1]]
    assert by_text.asked == [[0, 1, 2]]
    assert [(left.score, left.tokens) for left, _ in verdicts] == [(1.0, 3), (0.0, 3), (1.0, 0)]
    assert [(right.score, right.tokens) for _, right in verdicts] == [(1.0, 3), (0.0, 3), (1.0, 3)]


async def test_what_was_said_is_not_asked_again_until_the_question_is_finished() -> None:
    work = Counting()
    panel = Panel([Column("c", True, work)])
    samples = draws("1", "2", "3")
    first = await panel.check(ITEM, samples[:2], "c")
    assert (await panel.check(ITEM, samples, "c"))[:2] == first
    assert work.asked == [[0, 1], [2]]
    await panel.finish(ITEM, samples)
    assert work.asked == [[0, 1], [2]]
    await panel.check(ITEM, samples, "c")
    assert work.asked[-1] == [0, 1, 2]


async def test_what_a_journal_says_is_not_asked_again() -> None:
    work = Counting()
    panel = Panel([Column("c", True, work)])
    known, twin, other = draws("1", "1", "2")
    known = replace(known, verdicts=(Verdict("c", 0.25, tokens=3),))
    verdicts = await panel.check(ITEM, [twin, other], "c", seen=[known])
    assert [(said.score, said.tokens) for said in verdicts] == [(0.25, 0), (0.0, 3)]
    assert work.asked == [[2]]


async def test_what_was_said_given_other_words_is_asked_anew_and_stands_at_the_end() -> None:
    work = Counting()
    panel = Panel([Column("c", True, work)])
    handed = replace(ITEM, given=("assert f(1)",))
    [known], [twin] = draws("1"), draws("1")
    [plain] = await panel.check(ITEM, [known], "c")
    [said] = await panel.check(handed, [known], "c")
    assert (plain.given, said.given, said.score) == (None, handed.given_key, plain.score)
    assert await panel.check(handed, [known], "c") == [said]
    known = replace(known, verdicts=(plain, said))
    assert (await Panel([Column("c", True, work)]).check(handed, [twin], "c", seen=[known])) == [said]
    assert work.asked == [[0], [0]]
    assert await panel.finish(ITEM, [known]) == [(said,)]


async def test_at_the_end_a_verifier_that_costs_is_asked_nothing_new() -> None:
    free, dear = Counting(), Counting()
    panel = Panel([Column("f", True, free), Column("c", True, dear, free=False)])
    samples = draws("1", "2")
    samples[0] = replace(samples[0], verdicts=(Verdict("c", 0.5, tokens=3),))
    rows = await panel.finish(ITEM, samples)
    assert [[(said.score, said.tokens) for said in row] for row in rows] == [[(1.0, 3), (0.5, 3)], [(0.0, 3)]]
    assert dear.asked == []


async def test_an_unknown_verifier_is_a_strategys_mistake() -> None:
    with pytest.raises(StrategyError, match="no verifier called 'x'"):
        await Panel([Column("c", True, Counting())]).check(ITEM, draws("1"), "x")


async def test_an_error_is_told_and_asked_again_later() -> None:
    work = Counting(fails=1)
    panel = Panel([Column("c", True, work)])
    samples = draws("1", "2")
    assert await panel.check(ITEM, samples, "c") == [Verdict("c", error="not now")] * 2
    assert [said.score for said in await panel.check(ITEM, samples, "c")] == [1.0, 0.0]


async def test_no_more_questions_are_remembered_than_agreed() -> None:
    work = Counting()
    panel = Panel([Column("c", True, work)], remembered=2)
    for name in ("a", "b", "c", "a"):
        await panel.check(make_item(name), draws("1"), "c")
    assert len(work.asked) == 4


async def test_nothing_to_verify_is_nothing_to_ask() -> None:
    work = Counting()
    panel = Panel([Column("c", True, work)])
    assert await panel.finish(ITEM, []) == []
    assert await panel.check(ITEM, [], "c") == []
    assert await Panel([]).finish(ITEM, draws("1", "2")) == [(), ()]
    assert work.asked == []


async def test_a_judge_verifies_and_judges_with_all_verifiers_in_order() -> None:
    kinds = [{"kind": "exact"}, {"kind": "regex", "pattern": "^0$"}, {"kind": "numeric", "tolerance": 2.0}]
    judge = RuleJudge(make_spec(dataset={"reference": "gold"}, verifiers=kinds))
    samples = draws("1", "2")
    assert [said.score for said in await judge.check(ITEM, samples, "numeric")] == [1.0, 1.0]
    judgement = await judge.judge(ITEM, samples, "1")
    verdicts = judgement.verdicts
    assert [[said.verifier for said in row] for row in verdicts] == [["exact", "regex", "numeric"]] * 2
    assert [[said.score for said in row] for row in verdicts] == [[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    assert judgement.correct is True
    await judge.close()
