"""Weighted votes: what they promise, against the formulas written out and against plain votes."""

import math
import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.evidence import AUTO, CERTAIN_VOTES, DEFAULT_FADE, DEFAULT_STRENGTHS, Evidence, WeightedTally
from budgets.stopping import make_rule
from budgets.votes import Tally
from pipeline.errors import SpecError
from tests.factories import make_sample

ANCHORED = ["auto", "mean_logprob", "sum_logprob"]
WITHIN = ["within_question", "group_confidence"]
votes_with_scores = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.none() | st.floats(-50, 0) | st.just(math.nan)), max_size=45
)


def tally_of(evidence: Evidence, votes) -> WeightedTally:
    tally = evidence.tally()
    for answer, score in votes:
        tally.add(answer, score)
    return tally


def expected_counts(evidence: Evidence, votes) -> dict[str, float]:
    """The definition, all at once and without the running sums."""
    strength = DEFAULT_STRENGTHS[evidence.kind] if evidence.strength is None else evidence.strength
    fade = DEFAULT_FADE if evidence.fade is None else evidence.fade
    valid = [(answer, score) for answer, score in votes if answer is not None]
    scored = [(answer, score) for answer, score in valid if score is not None and math.isfinite(score)]
    top = max((score for _, score in scored), default=0.0) if evidence.kind in WITHIN else 0.0
    raw = [(answer, max(1e-9, math.exp(strength * (score - top)))) for answer, score in scored]
    total, squares = sum(w for _, w in raw), sum(w * w for _, w in raw)
    if evidence.kind in WITHIN:
        scale = total / squares if raw else 0.0
    else:
        scale = (CERTAIN_VOTES + len(raw)) / (CERTAIN_VOTES + total)
    share = fade / (fade + len(valid)) if math.isfinite(fade) else 1.0
    counts: dict[str, float] = {}
    for answer, _ in valid:
        counts[answer] = counts.get(answer, 0.0) + 1.0 - share
    for answer, score in valid:
        if score is None or not math.isfinite(score):
            counts[answer] += share
    for answer, weight in raw:
        counts[answer] += share * scale * weight
    return counts


@pytest.mark.parametrize("kind", ANCHORED + WITHIN)
@pytest.mark.parametrize("fade", [None, 3.0, math.inf])
@given(votes=votes_with_scores)
def test_evidence_is_its_definition(kind, fade, votes):
    evidence = Evidence(kind, strength=0.7, fade=fade)
    tally, expected = tally_of(evidence, votes), expected_counts(evidence, votes)
    assert dict(tally.counts) == pytest.approx(expected, rel=1e-6, abs=1e-8)
    ranked = [*sorted(expected.values(), reverse=True), 0.0, 0.0]
    assert tally.lead_weight == pytest.approx(ranked[0], rel=1e-6, abs=1e-8)
    assert tally.runner_up_weight == pytest.approx(ranked[1], rel=1e-6, abs=1e-8)
    assert (tally.leader is None) == (not expected)
    if tally.leader is not None:
        assert tally.counts[tally.leader] == tally.lead_weight


@pytest.mark.parametrize("kind", ANCHORED + WITHIN)
@given(votes=votes_with_scores, strength=st.floats(0, 50))
def test_weighting_alone_makes_no_vote_certain(kind, votes, strength):
    tally = tally_of(Evidence(kind, strength, math.inf), votes)
    assert sum(tally.counts.values()) <= tally.valid * (1 + 1e-9)
    assert sum(tally.plain.values()) == tally.valid
    assert tally.lead_weight >= tally.runner_up_weight >= 0.0


@pytest.mark.parametrize("kind", ["votes", *ANCHORED, *WITHIN])
@given(votes=st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([None, math.nan, math.inf]))))
def test_without_scores_it_is_the_plain_tally(kind, votes):
    weighted, plain = Evidence(kind).tally(), Tally()
    for answer, score in votes:
        weighted.add(answer, score)
        plain.add(answer)
        for name in ("leader", "lead_weight", "runner_up_weight", "n", "valid", "streak", "p_lead"):
            assert getattr(weighted, name) == getattr(plain, name), name
    assert dict(weighted.counts) == dict(plain.counts)


@pytest.mark.parametrize("kind", ANCHORED + WITHIN)
@given(votes=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=45), score=st.floats(-3, 0))
def test_equal_scores_rank_as_plain_votes_do(kind, votes, score):
    weighted, plain = Evidence(kind).tally(), Tally()
    for answer in votes:
        weighted.add(answer, score)
        plain.add(answer)
        assert weighted.leader == plain.leader


def test_strength_zero_is_the_plain_count():
    tally = tally_of(Evidence("mean_logprob", 0.0), [("a", -0.1), ("b", -2.0), ("a", -5.0)])
    assert dict(tally.counts) == pytest.approx({"a": 2.0, "b": 1.0})


def test_a_surer_minority_leads_early_and_the_majority_late():
    sure, unsure = ("a", -0.01), ("b", -0.6)
    assert tally_of(AUTO, [unsure, sure, unsure]).leader == "a"
    assert tally_of(AUTO, [unsure, sure, unsure] * 13).leader == "b"
    assert tally_of(Evidence(fade=math.inf), [unsure, sure, unsure] * 13).leader == "a"


def test_the_weight_of_a_vote_fades_towards_one():
    def share_of_plain(votes: int) -> float:
        tally = tally_of(AUTO, [("a", -0.01), ("b", -0.6)] * votes)
        return abs(tally.counts["a"] / tally.valid - 0.5)

    # Before the tenth vote the running scale still rises; from then on the fade rules.
    assert share_of_plain(5) > share_of_plain(20) > share_of_plain(200)
    assert share_of_plain(2000) < 0.01


def test_a_first_vote_of_low_probability_asks_for_more():
    low, high = tally_of(AUTO, [("a", -1.0)]), tally_of(AUTO, [("a", -0.01)])
    assert 0.5 < low.p_lead < high.p_lead < Tally().p_lead + 0.25


def test_within_a_question_only_differences_count():
    votes = [("a", 9.0), ("b", 10.5), ("a", 9.7), (None, 3.0), ("c", 12.0)]
    shifted = [(answer, score + 700.0) for answer, score in votes]
    one, other = (tally_of(Evidence("group_confidence"), each) for each in (votes, shifted))
    assert dict(one.counts) == pytest.approx(dict(other.counts))


@pytest.mark.parametrize("scores", [(-1e308, -1e308), (-1e308, 0.0), (0.0, -1e308), (1e308, -1e308), (-1e308, 1e308)])
@pytest.mark.parametrize("kind", ANCHORED + WITHIN)
@pytest.mark.parametrize("strength", [1.0, 1e10])
def test_absurd_scores_do_not_crash(kind, scores, strength):
    tally = tally_of(Evidence(kind, strength, math.inf), [("a", scores[0]), ("b", scores[1]), ("a", scores[0])])
    assert tally.leader in ("a", "b")
    assert all(0.0 <= count < math.inf for count in tally.counts.values())
    assert 0.0 <= tally.p_lead <= 1.0


def test_a_log_probability_above_zero_is_certain_and_no_more():
    assert tally_of(AUTO, [("a", 3.0)]).lead_weight == tally_of(AUTO, [("a", 0.0)]).lead_weight == 1.0


def test_samples_are_read_by_kind():
    sample = make_sample(mean_logprob=-0.25, completion_tokens=12, min_group_confidence=9.5)
    scores = {kind: Evidence(kind).score(sample) for kind in ["votes", *ANCHORED, *WITHIN]}
    assert scores == {
        "votes": None,
        "auto": -0.25,
        "mean_logprob": -0.25,
        "within_question": -0.25,
        "sum_logprob": -3.0,
        "group_confidence": 9.5,
    }


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["votes", *ANCHORED, *WITHIN])
def test_a_missing_or_broken_number_is_a_plain_vote(kind, value):
    sample = make_sample(answer="a", mean_logprob=value, min_group_confidence=value)
    assert Evidence(kind).score(sample) is None
    tally = Evidence(kind).tally()
    tally.add_sample(sample)
    assert dict(tally.counts) == {"a": 1.0}


def test_aborted_samples_count_and_never_vote():
    tally = AUTO.tally()
    tally.add_sample(make_sample(answer="a", mean_logprob=-0.1))
    for reason in ("abort", "interrupted"):
        tally.add_sample(make_sample(answer="b", mean_logprob=-0.1, finish_reason=reason))
    tally.add_sample(make_sample(answer=None, mean_logprob=-0.1))
    assert (tally.n, tally.valid, tally.streak, dict(tally.plain)) == (4, 1, 0, {"a": 1})


@given(votes=votes_with_scores)
def test_plain_counts_and_order_are_kept(votes):
    tally = tally_of(AUTO, votes)
    counts = Counter(answer for answer, _ in votes if answer is not None)
    assert dict(tally.plain) == counts
    assert list(tally.counts) == list(counts)


@pytest.mark.parametrize("rule", ["fixed:3", "adaptive_consistency", "adaptive_consistency:dirichlet", "esc:3", "ppr"])
@given(votes=votes_with_scores)
def test_every_rule_reads_it(rule, votes):
    tally = AUTO.tally()
    for answer, score in votes:
        tally.add(answer, score)
        assert make_rule(rule).should_stop(tally) in (True, False)


def test_views_cannot_be_written():
    tally = tally_of(AUTO, [("a", -0.1)])
    for view in (tally.counts, tally.plain):
        with pytest.raises(TypeError):
            view["a"] = 9.0


def test_settings_pickle_and_compare():
    assert pickle.loads(pickle.dumps(Evidence("sum_logprob", 0.5, 20.0))) == Evidence("sum_logprob", 0.5, 20.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "luck"}, "kind is 'luck': choose one of auto, votes"),
        ({"strength": -1.0}, "strength is -1.0"),
        ({"strength": math.nan}, "strength is nan"),
        ({"strength": math.inf}, "strength is inf"),
        ({"fade": 0.0}, "fade is 0.0"),
        ({"fade": math.nan}, "fade is nan"),
    ],
)
def test_malformed_settings(settings, message):
    with pytest.raises(SpecError, match=message):
        Evidence(**settings)
