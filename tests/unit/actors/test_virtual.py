"""The virtual worker: the live market over recorded samples, in virtual time."""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.virtual import VirtualJob, VirtualWorker, run_alone, run_market
from actors.virtual_session import Terms, VirtualSession
from actors.virtual_shard import Closed, VirtualStore
from budgets.evidence import Evidence
from budgets.ledger import LedgerError
from budgets.market import Market
from budgets.messages import WorkerReport
from budgets.stopping import AdaptiveConsistency, FixedN
from budgets.value import ExpectedTokens, voting_value
from budgets.votes import Tally, p_lead
from pipeline.errors import BudgetDenied, StrategyError
from pipeline.recording import Recording, Span
from pipeline.records import Item, StopReason
from strategies.base import Session, Solution, Strategy
from strategies.self_consistency import SelfConsistency
from tests.unit.pipeline.recordings import make_rows, write_rows

VOTES = Evidence("votes")
Outcomes = dict[str, Closed]


def open_recording(folder: Path, **rows) -> Recording:
    return Recording.open(write_rows(folder / "samples.parquet", make_rows(**rows)))


def make_job(recording: Recording, found: Outcomes, shards: int = 1, **fields) -> VirtualJob:
    """A job that counts samples and remembers the last answer of every question."""

    def closed(one: Closed) -> None:
        found[one.columns.item_ids[one.number]] = one

    defaults = {
        "strategy": lambda pool: SelfConsistency(max_samples=pool, rule=FixedN(pool), evidence=VOTES),
        "cost": lambda tokens: 1,
        "worst": 1,
        "seed": 0,
        "repeat": 0,
        "closed": closed,
    }
    return VirtualJob(recording=recording, spans=recording.spans(shards), **{**defaults, **fields})


def drawn(found: Outcomes) -> dict[str, int]:
    return {item_id: one.session.drawn for item_id, one in sorted(found.items())}


def greedy_queue(recording: Recording, budget: int, pool: int) -> dict[str, int]:
    """Samples a question gets from one global queue, highest bid first, one sample at a time."""
    columns = recording.read(Span(0, recording.questions))
    order = columns.draw_order(0, 0)
    tallies = [Tally() for _ in columns.item_ids]
    queue = [(-math.inf, number, number) for number in range(len(tallies))]
    arrivals = len(queue)
    while queue and budget:
        budget -= 1
        _, _, number = heapq.heappop(queue)
        tally = tallies[number]
        code = columns.answer[order[columns.starts[number] + tally.n]]
        tally.add(columns.answers[code] if code >= 0 else None)
        if tally.n < pool:
            bid = voting_value(p_lead(tally.lead_weight, tally.runner_up_weight), tally.n, 1.0)
            heapq.heappush(queue, (-bid, arrivals, number))
            arrivals += 1
    return {item_id: tally.n for item_id, tally in zip(columns.item_ids, tallies, strict=True)}


@pytest.mark.parametrize("budget", [40, 77, 150, 239])
def test_one_shard_one_worker_one_slot_is_the_global_greedy_queue(tmp_path: Path, budget: int) -> None:
    with open_recording(tmp_path, questions=24, pool=10) as recording:
        found: Outcomes = {}
        status = run_market(make_job(recording, found, slots=1), budget)
        assert status.spent == budget
        assert drawn(found) == greedy_queue(recording, budget, 10)


@pytest.mark.parametrize("rule", [FixedN(4), AdaptiveConsistency(), AdaptiveConsistency(threshold=0.8)])
@pytest.mark.parametrize("evidence", [VOTES, Evidence("auto")])
def test_an_ample_market_decides_as_every_question_alone(tmp_path: Path, rule, evidence: Evidence) -> None:
    with open_recording(tmp_path, questions=30, pool=12) as recording:
        bought: Outcomes = {}
        alone: Outcomes = {}

        def strategy(pool: int) -> Strategy:
            return SelfConsistency(max_samples=pool, rule=rule, evidence=evidence)

        status = run_market(make_job(recording, bought, shards=4, strategy=strategy), 30 * 12, workers=2)
        run_alone(make_job(recording, alone, strategy=strategy))
        assert {name: one.solution for name, one in bought.items()} == {
            name: one.solution for name, one in alone.items()
        }
        assert drawn(bought) == drawn(alone)
        assert status.spent == sum(drawn(alone).values())


@settings(deadline=None, max_examples=40)
@given(
    questions=st.integers(1, 20),
    budget=st.integers(1, 200),
    shards=st.integers(1, 8),
    workers=st.integers(1, 4),
    slots=st.integers(1, 9),
    window=st.integers(1, 12),
    minimum=st.integers(1, 3),
    in_tokens=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_replay_ends_within_its_budget(
    tmp_path_factory, questions, budget, shards, workers, slots, window, minimum, in_tokens, seed
):
    with open_recording(tmp_path_factory.mktemp("r"), questions=questions, pool=7, seed=seed) as recording:
        found: Outcomes = {}
        closings: list[str] = []
        base = make_job(recording, found)
        worst = recording.largest or 1
        job = replace(
            base,
            spans=recording.spans(shards),
            strategy=lambda pool: SelfConsistency(minimum, pool, rule=AdaptiveConsistency(), evidence=VOTES),
            slots=slots,
            open_questions=window,
            seed=seed,
            cost=(lambda tokens: tokens) if in_tokens else base.cost,
            worst=worst if in_tokens else 1,
            closed=lambda one: (closings.append(one.columns.item_ids[one.number]), base.closed(one))[0],
        )
        budget = budget * 10 if in_tokens else budget
        status = run_market(job, budget, workers)
        assert status.done
        assert sorted(set(closings)) == sorted(found) == [f"q{number:03d}" for number in range(questions)]
        spent = sum(one.session.spent for one in found.values())
        assert spent == status.spent <= budget
        if in_tokens:
            assert spent == sum(one.session.tokens for one in found.values())
        if not in_tokens and budget >= questions * 7:
            assert {one.solution.stop_reason for one in found.values()} <= {StopReason.SETTLED, StopReason.CAPPED}


def test_a_replay_gives_the_same_twice(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=30, pool=10) as recording:
        runs: list[Outcomes] = [{}, {}]
        for found in runs:
            run_market(make_job(recording, found, shards=6, slots=3), 120, workers=3)
        first, second = ({name: one.solution for name, one in found.items()} for found in runs)
        assert first == second
        assert drawn(runs[0]) == drawn(runs[1])


def test_parked_questions_go_on_in_a_second_generation(tmp_path: Path) -> None:
    """A narrow window must refuse before later shards have shown what they leave; what is left reopens the best."""
    rows = make_rows(questions=40, pool=20)
    for row in rows[400:]:
        row["answer"] = "right"
    with Recording.open(write_rows(tmp_path / "samples.parquet", rows)) as recording:
        found: Outcomes = {}
        before: dict[str, list[Closed]] = {}

        def closed(one: Closed) -> None:
            before.setdefault(one.columns.item_ids[one.number], []).append(one)

        def strategy(pool: int) -> Strategy:
            return SelfConsistency(max_samples=pool, rule=AdaptiveConsistency(), evidence=VOTES)

        job = make_job(recording, found, shards=10, slots=2, open_questions=4, closed=closed, strategy=strategy)
        status = run_market(job, 240)
        reopened = {name: ones for name, ones in before.items() if len(ones) > 1}
        assert reopened, "nothing was reopened although the second half settles early"
        for ones in reopened.values():
            assert all(one.solution.stop_reason in (StopReason.EXHAUSTED, StopReason.HOPELESS) for one in ones[:-1])
            counts = [one.session.drawn for one in ones]
            assert counts == sorted(counts)
        assert sum(ones[-1].session.drawn for ones in before.values()) == status.spent <= 240
        last = {name: ones[-1] for name, ones in before.items()}
        assert len(last) == 40


class Learner(SelfConsistency):
    """A vote that says how many questions it heard of, and teaches that it was asked."""

    async def solve(self, item: Item, session: Session) -> Solution:
        heard = await session.decide("asked", lambda known: str(sum(one.count for one in known.values())))
        found = await super().solve(item, session)
        session.learn("asked", "yes", 1.0, 0.0)
        return replace(found, facts={"heard": float(heard)})


@pytest.mark.parametrize("workers", [1, 3])
def test_every_question_teaches_once_and_what_it_decided_is_kept(tmp_path: Path, workers: int) -> None:
    rows = make_rows(questions=40, pool=20)
    for row in rows[400:]:
        row["answer"] = "right"
    with Recording.open(write_rows(tmp_path / "samples.parquet", rows)) as recording:
        closings: dict[str, list[float]] = {}

        def closed(one: Closed) -> None:
            closings.setdefault(one.columns.item_ids[one.number], []).append(one.solution.facts["heard"])

        def strategy(pool: int) -> Strategy:
            return Learner(max_samples=pool, rule=AdaptiveConsistency(), evidence=VOTES)

        job = make_job(recording, {}, shards=10, slots=2, open_questions=4, closed=closed, strategy=strategy)
        run_market(job, 240, workers)
        assert any(len(heard) > 1 for heard in closings.values()), "nothing was reopened"
        assert all(len(set(heard)) == 1 for heard in closings.values())
        heard = [each[0] for each in closings.values()]
        assert min(heard) == 0
        assert 40 - 4 * workers <= max(heard) <= 40


def test_alone_questions_teach_those_after_them(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=5, pool=4) as recording:
        found: Outcomes = {}
        run_alone(make_job(recording, found, strategy=lambda pool: Learner(max_samples=pool, evidence=VOTES)))
        assert sorted(one.solution.facts["heard"] for one in found.values()) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_workers_report_by_the_protocol(tmp_path: Path) -> None:
    """Numbered reports, complete each time, grants acknowledged, capacity and running samples within the slots."""
    reports: list[WorkerReport] = []

    class Watched(Market):
        def sync(self, report):
            reports.append(report)
            return super().sync(report)

    with open_recording(tmp_path, questions=9, pool=10) as recording:
        job = make_job(recording, {}, shards=3, slots=4)
        market = Watched(40, 0, {shard: span.stop - span.start for shard, span in enumerate(job.spans)})
        worker = VirtualWorker(job, VirtualStore(9), "v0")
        times = [0.0]
        while not worker.sync(market):
            times.append(worker.run())
    assert [report.seq for report in reports] == list(range(1, len(reports) + 1))
    assert all(report.capacity + report.inflight == 4 for report in reports)
    assert all(0.05 - 1e-9 <= later - sooner <= 1.0 + 1e-9 for sooner, later in itertools.pairwise(times))
    assert reports[-1].spent == market.ledger.spent == 40
    assert {state.shard_id for report in reports for state in report.shards if state.committed} == {0, 1, 2}


def test_a_pool_caps_its_question(tmp_path: Path) -> None:
    rows = [row for row in make_rows(questions=3, pool=9) if row["sample_index"] < 3 or row["item_id"] != "q001"]
    with Recording.open(write_rows(tmp_path / "samples.parquet", rows)) as recording:
        found: Outcomes = {}
        run_market(make_job(recording, found), 1000)
        assert drawn(found) == {"q000": 9, "q001": 3, "q002": 9}
        assert {one.solution.stop_reason for one in found.values()} == {StopReason.CAPPED}


class Greedy:
    """Asks for more than there is, in lots, whatever it costs; and remembers what it got."""

    minimum, maximum = 1, 100

    def __init__(self, lots: int, handles: bool = True) -> None:
        self.lots, self.handles = lots, handles
        self.got: list[int] = []

    async def solve(self, item: Item, session: Session) -> Solution:
        try:
            while True:
                self.got.append(len(await session.sample(self.lots, value=0.5)))
        except BudgetDenied:
            if not self.handles:
                raise
        return Solution(None, None, StopReason.EXHAUSTED, 0.0, 0)


@pytest.mark.parametrize(("budget", "got"), [(5, [4, 1]), (9, [4, 4, 1]), (100, [4, 4, 2])])
def test_lots_come_back_in_part_where_the_market_paid_for_some(tmp_path: Path, budget: int, got: list[int]) -> None:
    with open_recording(tmp_path, questions=1, pool=10) as recording:
        greedy = Greedy(lots=4)
        status = run_market(make_job(recording, {}, strategy=lambda pool: greedy), budget)
        assert greedy.got == got
        assert status.spent == sum(got)


def test_a_strategy_that_does_not_handle_a_refusal_is_named(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=1, pool=10) as recording:
        job = make_job(recording, {}, strategy=lambda pool: Greedy(1, handles=False))
        with pytest.raises(StrategyError, match="Greedy does not handle BudgetDenied"):
            run_market(job, 3)


def test_a_budget_below_one_is_refused(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=1) as recording, pytest.raises(LedgerError):
        run_market(make_job(recording, {}), 0)


def make_session(recording: Recording, ask: Callable, **fields) -> VirtualSession:
    terms = Terms(lambda tokens: tokens, 30, 0, ExpectedTokens(), ask, lambda session: None)
    return VirtualSession(recording.read(Span(0, 1)), 0, list(range(10)), terms, **fields)


def test_what_is_paid_for_is_handed_out_and_the_rest_asked_for(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=1, pool=10) as recording:
        asks = []
        greedy = Greedy(lots=3)
        session = make_session(recording, asks.append, paid=4)
        assert session.go_on(greedy) is None
        assert (greedy.got, session.drawn, len(asks)) == ([3], 3, 2)
        for ask in asks:
            assert not ask.done()
            ask.land(ask.tokens)
            assert ask.done()
        assert session.go_on(greedy) is None
        assert (greedy.got, session.drawn, len(asks)) == ([3, 3], 6, 5)
        rows = make_rows(questions=1, pool=10)
        assert session.tokens == session.spent == sum(row["completion_tokens"] for row in rows[:6])


def test_below_the_least_value_of_a_generation_nothing_is_asked_for(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=1, pool=10) as recording:
        greedy = Greedy(lots=3)
        session = make_session(recording, lambda ask: pytest.fail("asked"), paid=3, min_value=0.6)
        assert session.go_on(greedy) is not None
        assert greedy.got == [3]


def test_below_that_value_what_is_paid_for_is_handed_out_all_the_same(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=1, pool=10) as recording:
        session = make_session(recording, lambda ask: pytest.fail("asked"), paid=3, min_value=0.6)

        async def ask() -> list[int]:
            first = await session.sample(2, value=0.5)
            return [one.sample_index for one in [*first, *await session.sample(4, value=0.5)]]

        with pytest.raises(StopIteration) as end:
            ask().send(None)
        assert end.value.value == [0, 1, 2]


def test_rng_depends_on_seed_and_item_alone(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=1, pool=10) as recording:
        sessions = [make_session(recording, lambda ask: None) for _ in range(2)]
        assert sessions[0].rng.random() == sessions[1].rng.random()
