"""All samples of a question counted together, whoever asked for them."""

from budgets.evidence import Evidence
from pipeline.records import StopReason
from strategies.base import PLAIN, Draw, Solution
from strategies.together import together
from tests.factories import make_sample

VOTES = Evidence("votes")


def drawn(letters: str, key: str, **fields):
    return [
        make_sample(index=at, answer=None if one == "." else one, prompt_key=key, **fields)
        for at, one in enumerate(letters)
    ]


def said(answer: str, sample, votes: int) -> Solution:
    return Solution(answer, sample, StopReason.CAPPED, 0.5, votes)


def test_samples_count_for_what_their_model_costs():
    pool = {PLAIN: drawn("aaab.", "k"), Draw(model="large"): drawn("b", "l", model="large")}
    found = together(pool, {None}, [], {"large": 4.0}, VOTES)
    assert (found.leader, found.weight, found.rival) == ("b", 5.0, 3.0)
    assert [(one.prompt_key, one.sample_index) for one in found.standing] == [("k", 3), ("l", 0)]
    alike = together(pool, {None}, [], {}, VOTES)
    assert (alike.leader, alike.weight, alike.rival) == ("a", 3.0, 2.0)


def test_beginnings_and_replies_about_candidates_do_not_vote():
    pool = {
        PLAIN: drawn("a", "k"),
        Draw(max_tokens=8): drawn("bb", "short"),
        Draw(prefix="b", max_tokens=None): drawn("bb", "begun"),
        Draw(prompt="which is best?"): drawn("33", "about"),
        Draw(prompt="an arm's"): drawn("c", "arm"),
    }
    found = together(pool, {None, "an arm's"}, [], {}, VOTES)
    assert (found.leader, found.weight, found.rival) == ("a", 1.0, 1.0)


def test_an_arm_with_ways_of_its_own_is_heard_by_its_solution_and_others_once():
    pool = {PLAIN: drawn("ab", "k"), Draw(prefix="x"): drawn("ccc", "begun")}
    solutions = [said("a", pool[PLAIN][0], 1), said("c", pool[Draw(prefix="x")][0], 3)]
    found = together(pool, {None}, solutions, {}, VOTES)
    assert (found.leader, found.weight, found.rival) == ("c", 3.0, 1.0)
    over = found.over(solutions[0])
    assert (over.answer, over.votes, over.best.answer, over.confidence) == ("c", 1, "c", 0.8125)


def test_where_nothing_votes_nobody_leads():
    found = together({PLAIN: drawn("..", "k") + drawn("a", "l", finish_reason="abort")}, {None}, [], {}, VOTES)
    assert (found.leader, found.weight, found.rival, found.standing) == (None, 0.0, 0.0, ())
