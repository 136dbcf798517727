"""Self-consistency's settings: rules, evidence, alpha, pruning; through the strategy and from a job file."""

import asyncio
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.assembly import make_strategy
from budgets.evidence import Evidence
from budgets.stopping import AdaptiveConsistency, EarlyStoppingSelfConsistency, FixedN, PPR1v1
from pipeline.errors import SpecError
from pipeline.records import Sample, StopReason
from strategies.base import Solution
from strategies.self_consistency import SelfConsistency
from tests.factories import make_item, make_sample, make_spec
from tests.fake_session import FakeSession


def samples_of(answers, logprob: float | None = None) -> list[Sample]:
    return [make_sample(index=i, answer=answer, mean_logprob=logprob) for i, answer in enumerate(answers)]


def solve(strategy: SelfConsistency, samples: list[Sample]) -> tuple[Solution, FakeSession]:
    session = FakeSession(samples)
    return asyncio.run(strategy.solve(make_item(), session)), session


@pytest.mark.parametrize(
    ("rule", "drawn", "reason"),
    [
        (None, 4, StopReason.SETTLED),
        (EarlyStoppingSelfConsistency(5), 5, StopReason.SETTLED),
        (PPR1v1(0.05), 8, StopReason.SETTLED),
        (AdaptiveConsistency("beta", 0.99), 6, StopReason.SETTLED),
        (FixedN(3), 3, StopReason.CAPPED),
    ],
)
def test_the_rule_decides(rule, drawn, reason):
    solution, session = solve(SelfConsistency(rule=rule), samples_of("a" * 12))
    assert (len(session.drawn), solution.stop_reason, solution.votes) == (drawn, reason, drawn)


def test_a_fixed_number_of_samples_that_never_parse_is_hopeless():
    solution, session = solve(SelfConsistency(rule=FixedN(3)), samples_of([None] * 9))
    assert (len(session.drawn), solution.answer, solution.stop_reason) == (3, None, StopReason.HOPELESS)


def test_votes_are_plain_and_confidence_is_weighted():
    answers = [("a", -0.6), ("b", -0.01), ("a", -0.7)]
    samples = [make_sample(index=i, answer=a, mean_logprob=x) for i, (a, x) in enumerate(answers)]
    weighted, _ = solve(SelfConsistency(), samples)
    plain, _ = solve(SelfConsistency(evidence=Evidence("votes")), samples)
    tally = Evidence().tally()
    for sample in samples:
        tally.add_sample(sample)
    assert (weighted.answer, weighted.votes, weighted.best) == ("b", 1, samples[1])
    assert weighted.confidence == tally.p_lead
    assert (plain.answer, plain.votes, plain.confidence) == ("a", 2, 11 / 16)


def test_unsure_samples_settle_later_than_sure_ones():
    _, sure = solve(SelfConsistency(), samples_of("a" * 20, logprob=-0.001))
    _, unsure = solve(SelfConsistency(), samples_of("a" * 20, logprob=-0.8))
    assert len(sure.drawn) == 4
    assert len(unsure.drawn) > 4


def test_alpha_shapes_the_bid():
    for alpha in (0.0, 1.0):
        _, session = solve(SelfConsistency(alpha=alpha, evidence=Evidence("votes")), samples_of("ab"))
        assert session.bids[2] == pytest.approx(0.5 / 2**alpha / 10)


def test_forecast_gives_up_a_flat_vote_by_itself_and_price_does_not():
    flat = samples_of("ab" * 20)
    by_itself, session = solve(SelfConsistency(prune="forecast"), flat)
    assert (len(session.drawn), by_itself.stop_reason, by_itself.answer, by_itself.next_value) == (
        8,
        StopReason.HOPELESS,
        "a",
        0.0,
    )
    by_price, session = solve(SelfConsistency(prune="price"), flat)
    assert (len(session.drawn), by_price.stop_reason) == (40, StopReason.CAPPED)


def test_forecast_gives_up_where_nothing_parses():
    solution, session = solve(SelfConsistency(prune="forecast"), samples_of([None] * 40))
    assert (len(session.drawn), solution.stop_reason) == (8, StopReason.HOPELESS)


def test_forecast_leaves_a_leaning_vote_alone():
    solution, _ = solve(SelfConsistency(prune="forecast"), samples_of("abaaabaaaaaa"))
    assert solution.stop_reason is StopReason.SETTLED


def test_aborted_samples_cost_and_never_vote():
    cut = [make_sample(index=i, answer="b", finish_reason="abort") for i in range(5)]
    kept = [make_sample(index=i, answer="a") for i in range(5, 9)]
    solution, session = solve(SelfConsistency(), cut + kept)
    assert (solution.answer, solution.votes, len(session.drawn), solution.stop_reason) == (
        "a",
        4,
        9,
        StopReason.SETTLED,
    )
    assert session.bids[5] == pytest.approx(0.5 / math.sqrt(5) / 10)


def test_without_money_or_without_an_answer():
    broke, _ = solve(SelfConsistency(), [])
    assert (broke.stop_reason, broke.answer, broke.next_value) == (StopReason.EXHAUSTED, None, math.inf)
    unparsed, _ = solve(SelfConsistency(), samples_of([None] * 2))
    assert (unparsed.stop_reason, unparsed.answer, unparsed.confidence) == (StopReason.EXHAUSTED, None, 0.0)


@given(
    votes=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.none() | st.floats(-2, 0)), max_size=45),
    cut=st.integers(0, 45),
    prune=st.sampled_from(["price", "forecast"]),
)
def test_resumed_over_a_longer_record_it_goes_on_as_it_began(votes, cut, prune):
    samples = [make_sample(index=i, answer=a, mean_logprob=x) for i, (a, x) in enumerate(votes)]
    strategy = SelfConsistency(prune=prune)
    whole, all_of_it = solve(strategy, samples)
    again, same = solve(strategy, samples)
    part, some = solve(strategy, samples[:cut])
    assert (again, same.bids) == (whole, all_of_it.bids)
    assert some.bids == all_of_it.bids[: len(some.bids)]
    if len(all_of_it.drawn) <= cut and whole.stop_reason is not StopReason.EXHAUSTED:
        assert part.answer == whole.answer


def test_unknown_pruning():
    with pytest.raises(SpecError, match="prune is 'axe'"):
        SelfConsistency(prune="axe")


def test_a_job_names_every_setting():
    spec = make_spec(
        strategy={
            "kind": "self_consistency",
            "min_samples": 2,
            "max_samples": 20,
            "confidence": 0.9,
            "rule": "adaptive_consistency:dirichlet:0.9",
            "evidence": "within_question",
            "evidence_strength": 3.0,
            "evidence_fade": 12,
            "alpha": 1.0,
            "prune": "forecast",
        }
    ).strategy
    assert make_strategy(spec) == SelfConsistency(
        2, 20, 0.9, AdaptiveConsistency("dirichlet", 0.9), Evidence("within_question", 3.0, 12.0), 1.0, "forecast"
    )


def test_a_job_that_names_none_gets_the_strategys_defaults():
    assert make_strategy(make_spec().strategy) == SelfConsistency()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rule", "best", "rule 'best' is unknown"),
        ("rule", "esc:1", "window is 1"),
        ("rule", "fixed:0", "n is 0"),
        ("evidence", "luck", "evidence"),
        ("evidence_strength", -1, "evidence_strength"),
        ("evidence_strength", math.inf, "evidence_strength"),
        ("evidence_fade", 0, "evidence_fade"),
        ("evidence_fade", math.nan, "evidence_fade"),
        ("alpha", -0.5, "alpha"),
        ("alpha", math.nan, "alpha"),
        ("prune", "axe", "prune"),
    ],
)
def test_a_malformed_setting_is_named(field, value, message):
    with pytest.raises(SpecError, match=message):
        make_spec(strategy={"kind": "self_consistency", field: value})


def test_a_job_is_checked_without_torch_ray_or_vllm():
    check = (
        "import sys, pipeline.spec; loaded = {'torch', 'ray', 'vllm', 'numpy', 'pyarrow'} & set(sys.modules); "
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
