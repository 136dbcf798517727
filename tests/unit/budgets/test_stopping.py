"""Stopping rules: the papers' known stops, and the parser's errors."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.stopping import AdaptiveConsistency, EarlyStoppingSelfConsistency, FixedN, PPR1v1, is_hopeless, make_rule
from budgets.votes import Tally, p_mode
from pipeline.errors import SpecError

ALL_RULES = [
    FixedN(40),
    *(AdaptiveConsistency(form) for form in ("beta", "dirichlet", "majority", "entropy")),
    EarlyStoppingSelfConsistency(),
    PPR1v1(),
]


def stops_at(rule, answers) -> int | None:
    tally = Tally()
    for n, answer in enumerate(answers, start=1):
        tally.add(answer)
        if rule.should_stop(tally):
            return n
    return None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (FixedN(3), 3),
        (AdaptiveConsistency(), 4),
        (AdaptiveConsistency("beta", 0.99), 6),
        (AdaptiveConsistency("dirichlet"), 4),
        (AdaptiveConsistency("majority"), 2),
        (AdaptiveConsistency("entropy"), 2),
        (EarlyStoppingSelfConsistency(), 5),
        (PPR1v1(), 8),
    ],
)
def test_unanimous_answers_stop_where_the_papers_say(rule, expected):
    assert stops_at(rule, ["x"] * 40) == expected


def test_defaults_by_form():
    assert [AdaptiveConsistency(form).threshold for form in ("beta", "dirichlet", "majority", "entropy")] == [
        0.95,
        0.95,
        0.8,
        0.75,
    ]


def test_windows_do_not_overlap():
    rule = EarlyStoppingSelfConsistency(5)
    assert stops_at(rule, "abbbbbbbbb") == 10
    assert stops_at(rule, [None, *"bbbb", *"bbbbb"]) == 10
    assert stops_at(rule, "abab" * 10) is None


def test_dirichlet_is_stricter_with_many_rivals():
    answers = "aaabcdefaaa"
    beta = stops_at(AdaptiveConsistency("beta", 0.9), answers)
    dirichlet = stops_at(AdaptiveConsistency("dirichlet", 0.9), answers)
    assert beta is not None
    assert dirichlet is None or dirichlet >= beta


@given(
    counts=st.lists(st.floats(0, 20), min_size=3, max_size=5), threshold=st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])
)
def test_the_bounds_of_dirichlet_decide_as_the_integral_does(counts, threshold):
    tally = Tally()
    for answer, count in zip("abcde", counts, strict=False):
        tally.add(answer, count)
    exact = p_mode(tuple(counts))
    if abs(exact - threshold) > 1e-6:  # the integral's own accuracy
        assert AdaptiveConsistency("dirichlet", threshold).should_stop(tally) == (exact >= threshold)


def test_ppr_splits_delta_over_rivals():
    assert stops_at(PPR1v1(0.05), "b" + "a" * 40) < stops_at(PPR1v1(0.05), "bcde" + "a" * 40)


@pytest.mark.parametrize("rule", ALL_RULES[1:], ids=repr)
def test_unparsed_samples_settle_nothing(rule):
    assert stops_at(rule, [None] * 60) is None


@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
def test_rules_pickle_and_compare(rule):
    assert pickle.loads(pickle.dumps(rule)) == rule


@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
@given(votes=st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.floats(0, 2)), max_size=30))
def test_rules_work_on_weighted_votes(rule, votes):
    tally = Tally()
    for answer, weight in votes:
        tally.add(answer, weight)
        assert rule.should_stop(tally) in (True, False)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("fixed:40", FixedN(40)),
        ("adaptive_consistency", AdaptiveConsistency()),
        ("adaptive_consistency:0.95", AdaptiveConsistency("beta", 0.95)),
        ("adaptive_consistency:dirichlet:0.9", AdaptiveConsistency("dirichlet", 0.9)),
        ("adaptive_consistency:majority", AdaptiveConsistency("majority", 0.8)),
        ("esc:5", EarlyStoppingSelfConsistency(5)),
        ("esc", EarlyStoppingSelfConsistency(5)),
        ("ppr:0.05", PPR1v1(0.05)),
    ],
)
def test_make_rule(text, rule):
    assert make_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "", "best", "fixed:", "fixed:0", "fixed:x", "fixed:1:2", "esc:1", "esc:2.5", "ppr:0", "ppr:nan", "ppr:x",
        "adaptive_consistency:1.5", "adaptive_consistency:nan", "adaptive_consistency:gamma",
        "adaptive_consistency:beta:0.9:1",
    ],
)  # fmt: skip
def test_make_rule_refuses(text):
    with pytest.raises(SpecError):
        make_rule(text)


def test_an_unknown_rule_lists_the_known_ones():
    with pytest.raises(SpecError, match=r"'best'.*adaptive_consistency, fixed, esc, ppr"):
        make_rule("best")


def test_unknown_form():
    with pytest.raises(SpecError, match="form is 'gamma'"):
        AdaptiveConsistency("gamma")


def test_a_flat_vote_is_hopeless_and_an_early_or_leaning_one_is_not():
    def tally_of(answers: str) -> Tally:
        tally = Tally()
        for answer in answers:
            tally.add(answer)
        return tally

    assert is_hopeless(tally_of("abababab"), 0.95, 40)
    assert is_hopeless(tally_of("aaaaabbb"), 0.95, 40)  # 25:15 at the cap, P_lead .943
    assert not is_hopeless(tally_of("aaaaaabb"), 0.95, 40)
    assert not is_hopeless(tally_of("abab"), 0.95, 40)
