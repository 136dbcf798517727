import math

import pytest

from actors.audit import AUDIT_BID, is_audited, run_audit
from budgets.evidence import Evidence
from pipeline.records import StopReason
from pipeline.status import status_of
from strategies.self_consistency import SelfConsistency
from tests.factories import make_item
from tests.fake_session import FakeSession
from tests.unit.actors.test_station import ALL, ids, make_job, outcome, spent, work

VOTES = SelfConsistency(min_samples=1, max_samples=7, evidence=Evidence("votes"))


def recorded(answers: str, paid: int) -> FakeSession:
    """A session over answers already there; beyond ``paid`` of them the market refuses."""
    return FakeSession(list(answers), budget=paid)


async def audited(answers: str, paid: int = 7):
    session = recorded(answers, paid)
    early = await VOTES.solve(make_item(), recorded(answers, 7))
    audit = await run_audit(VOTES.unstopped(), make_item(), session, early, used=4)
    return early, audit, session


async def test_a_vote_that_turns_after_the_early_stop_is_a_flip():
    # Four alike settle at .95; at seven it is 4 to 3 and stands.
    early, audit, _ = await audited("aaaabbb")
    assert (early.answer, early.stop_reason, early.votes) == ("a", StopReason.SETTLED, 4)
    assert (audit.answer, audit.flipped, audit.samples) == ("a", False, 3)


async def test_a_flip_is_seen():
    loose = SelfConsistency(min_samples=1, max_samples=5, confidence=0.7, evidence=Evidence("votes"))
    early = await loose.solve(make_item(), recorded("abbbb", 5))
    assert (early.answer, early.votes) == ("a", 1)
    audit = await run_audit(loose.unstopped(), make_item(), recorded("abbbb", 5), early, used=1)
    assert (audit.answer, audit.flipped, audit.samples) == ("b", True, 4)


async def test_an_audit_that_is_not_paid_to_its_end_says_nothing():
    _, audit, _ = await audited("aaaabbb", paid=5)
    assert (audit.flipped, audit.samples) == (None, 1)


async def test_an_audit_that_is_refused_while_its_vote_is_flat_says_nothing():
    # Settled on the first answer, then four to four: refused there, the vote calls itself hopeless.
    votes, loose = "abbaabba", SelfConsistency(max_samples=12, confidence=0.6, evidence=Evidence("votes"))
    early = await loose.solve(make_item(), recorded(votes, 8))
    assert (early.answer, early.votes, early.stop_reason) == ("a", 1, StopReason.SETTLED)
    refused = await loose.unstopped().solve(make_item(), recorded(votes, 8))
    assert refused.stop_reason is StopReason.HOPELESS
    audit = await run_audit(loose.unstopped(), make_item(), recorded(votes, 8), early, used=1)
    assert (audit.flipped, audit.samples) == (None, 7)


async def test_audits_bid_after_minimums_and_before_everything_else():
    _, _, session = await audited("aaaabbb")
    assert session.bids == [math.inf] + [AUDIT_BID] * 6
    assert math.isfinite(AUDIT_BID)


def test_the_same_questions_are_chosen_every_time_and_about_as_many_as_asked_for():
    names = [f"q{i}" for i in range(4000)]
    chosen = {name for name in names if is_audited(3, name, 0.1)}
    assert chosen == {name for name in reversed(names) if is_audited(3, name, 0.1)}
    assert 300 < len(chosen) < 500
    assert chosen < {name for name in names if is_audited(3, name, 0.2)}
    assert chosen != {name for name in names if is_audited(4, name, 0.1)}
    assert not any(is_audited(3, name, 0.0) for name in names)


async def test_a_run_with_an_audit_answers_as_one_without(tmp_path):
    plain, audit = tmp_path / "plain", tmp_path / "audit"
    plain.mkdir(), audit.mkdir()
    specs = [
        make_job(plain, strategy={"kind": "self_consistency", "max_samples": 12}),
        make_job(
            audit, strategy={"kind": "self_consistency", "max_samples": 12}, budget={"tokens": 10**6, "audit": 0.5}
        ),
    ]
    for spec in specs:
        await work(spec, ["w-0"])
    (before, few, _), (after, many, _) = outcome(specs[0]), outcome(specs[1])
    early = ("item_id", "answer", "votes", "confidence", "stop_reason")
    assert [[a[c] for c in early] for a in before] == [[a[c] for c in early] for a in after]
    chosen = {
        a["item_id"] for a in after if a["stop_reason"] == "settled" and is_audited(specs[1].seed, a["item_id"], 0.5)
    }
    assert {a["item_id"] for a in after if a["flipped"] is not None} == chosen
    assert chosen
    assert ids(after) == ALL
    extra = {(s["item_id"], s["sample_index"]) for s in many} - {(s["item_id"], s["sample_index"]) for s in few}
    assert {name for name, _ in extra} == chosen
    assert {a["item_id"]: a["audit_samples"] for a in after if a["item_id"] in chosen} == {
        a["item_id"]: 12 - next(b["samples"] for b in before if b["item_id"] == a["item_id"])
        for a in after
        if a["item_id"] in chosen
    }
    assert spent(specs[1]) == sum(a["tokens"] for a in after)
    counted = [a for a in after if a["flipped"] is not None]
    assert all(a["audit_correct"] == (a["audit_answer"] == "1") for a in counted)
    assert all(a["audit_correct"] is None for a in after if a["flipped"] is None)
    told = status_of(specs[1].output).audit
    assert (told.audited, told.flipped, told.judged) == (len(counted), sum(a["flipped"] for a in counted), len(counted))
    assert told.accuracy_early == sum(a["correct"] for a in counted) / len(counted)
    assert told.accuracy_full == sum(a["audit_correct"] for a in counted) / len(counted)
    assert status_of(specs[0].output).audit is None


async def test_a_flipped_answer_is_judged_by_itself(tmp_path):
    # Settled at once on anything: the vote at the cap turns many of them.
    early = {"kind": "self_consistency", "max_samples": 12, "confidence": 0.55}
    spec = make_job(tmp_path, strategy=early, budget={"tokens": 10**6, "audit": 0.9})
    await work(spec, ["w-0"])
    flipped = [a for a in outcome(spec)[0] if a["flipped"]]
    assert {a["audit_answer"] == "1" for a in flipped} == {True, False}
    assert all(a["audit_correct"] == (a["audit_answer"] == "1") for a in flipped)
    told = status_of(spec.output).audit
    assert told.flipped == len(flipped)
    assert told.accuracy_early != told.accuracy_full


async def test_a_tight_budget_pays_every_minimum_before_an_audit(tmp_path):
    # 20 questions at ≤ 16 + 3 tokens each: enough for one sample everywhere and not for two.
    spec = make_job(tmp_path, budget={"tokens": 420, "audit": 0.9}, model={"options": {"tokens": 12}})
    await work(spec, ["w-0"])
    answers, _, _ = outcome(spec)
    assert min(a["samples"] for a in answers) == 1
    assert spent(spec) <= 420


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_that_is_none_is_refused(tmp_path, fraction):
    with pytest.raises(Exception, match="audit"):
        make_job(tmp_path, budget={"tokens": 10, "audit": fraction})
