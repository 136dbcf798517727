"""Checks of the virtual worker: bid for, paid once, from the budget of the samples."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.virtual import run_alone, run_market
from actors.virtual_checks import Checking, Said
from pipeline.recording import Columns, Recording
from pipeline.records import Verdict
from strategies.base import Strategy
from strategies.best_of_n import BestOfN
from strategies.self_consistency import SelfConsistency
from tests.unit.actors.test_virtual import VOTES, Outcomes, make_job, open_recording
from tests.unit.pipeline.recordings import make_rows, write_rows


def costly(tokens: int, worst: int = 9) -> Checking:
    """Every answer is checked once, for so many tokens; "right" passes."""

    def says(columns: Columns, number: int, row: int, verifier: str, given: Sequence[str]) -> Said:
        code = columns.answer.item(row)
        score = float(code >= 0 and columns.answers[code] == "right")
        return Said(Verdict(verifier, score, tokens=tokens), code)

    return Checking(says, cost=lambda spent: spent, worst=lambda verifier: worst)


@pytest.mark.parametrize("budget", [60, 300, 1_000, 100_000])
@pytest.mark.parametrize(
    "strategy",
    [
        SelfConsistency(max_samples=10, verifier="v", verify="weigh", evidence=VOTES),
        BestOfN(score="v", stop="pass", max_samples=10),
        BestOfN(score="v", stop="fixed", max_samples=10, min_samples=3),
    ],
)
def test_checks_are_paid_once_from_the_same_budget(tmp_path: Path, strategy: Strategy, budget: int) -> None:
    with open_recording(tmp_path, questions=12, pool=10) as recording:
        found: Outcomes = {}
        job = make_job(
            recording,
            found,
            shards=3,
            strategy=lambda pool: strategy,
            cost=lambda tokens: tokens,
            worst=30,
            checking=costly(4),
        )
        status = run_market(job, budget)
        sessions = [one.session for one in found.values()]
        assert len(sessions) == 12
        # Reopened questions go over their checks again; what the market paid says whether it was for nothing.
        assert status.spent == sum(one.spent for one in sessions) <= budget
        assert [one.spent for one in sessions] == [one.tokens + one.verification for one in sessions]
        assert all(one.verification % 4 == 0 for one in sessions)
        if budget == 100_000:
            assert sum(one.verification for one in sessions) > 0


def test_answers_that_are_equal_are_checked_as_one(tmp_path: Path) -> None:
    with open_recording(tmp_path, questions=6, pool=10) as recording:
        found: Outcomes = {}
        strategy = BestOfN(score="v", stop="fixed", max_samples=10)
        run_alone(make_job(recording, found, strategy=lambda pool: strategy, checking=costly(4)))
        for one in found.values():
            codes = one.columns.answer[one.columns.starts[one.number] : one.columns.starts[one.number + 1]]
            assert one.session.verification == 4 * len(set(codes[codes >= 0].tolist()))


def test_recorded_scores_are_said_for_nothing_whatever_the_name(tmp_path: Path) -> None:
    rows = [{**row, "score": float(row["answer"] == "right")} for row in make_rows(questions=6, pool=10)]
    with Recording.open(write_rows(tmp_path / "scored.parquet", rows)) as recording:
        found: Outcomes = {}
        strategy = BestOfN(score="anything", stop="pass", max_samples=10)
        run_alone(make_job(recording, found, strategy=lambda pool: strategy))
        assert {one.solution.answer for one in found.values()} == {"right"}
        assert {one.session.verification for one in found.values()} == {0}
