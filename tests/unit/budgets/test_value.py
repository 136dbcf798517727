"""Bids: their shape, their limits, their errors."""

import math

import pytest

from budgets.value import ExpectedTokens, frontier_value, success_value, voting_value
from pipeline.errors import SpecError


def test_formula():
    assert voting_value(0.75, 4, 100, stakes=3, alpha=0.5) == pytest.approx(3 * 0.25 / 2 / 100)
    assert voting_value(0.75, 4, 100, alpha=0.0) == pytest.approx(0.25 / 100)


def test_the_minimum_comes_first():
    assert voting_value(0.5, 0, 100) == math.inf
    assert voting_value(0.5, 0, 100, stakes=0.0) == math.inf


def test_certain_or_worthless_bids_nothing():
    assert voting_value(1.0, 3, 100) == 0.0
    assert voting_value(0.5, 3, 100, stakes=0.0) == 0.0


@pytest.mark.parametrize("stakes", [math.nan, -1.0, math.inf])
def test_malformed_stakes(stakes):
    with pytest.raises(SpecError, match="stakes is"):
        voting_value(0.5, 0, 100, stakes=stakes)


@pytest.mark.parametrize(
    ("p_lead", "n", "tokens", "alpha"),
    [(1.1, 1, 10, 0.5), (math.nan, 1, 10, 0.5), (0.5, -1, 10, 0.5), (0.5, 1, 0, 0.5), (0.5, 1, math.nan, 0.5),
     (0.5, 1, 10, -1.0), (0.5, 1, 10, math.nan)],
)  # fmt: skip
def test_malformed_input(p_lead, n, tokens, alpha):
    with pytest.raises(SpecError):
        voting_value(p_lead, n, tokens, alpha=alpha)


def test_a_fresh_question_outbids_one_whose_tries_fail():
    bids = [success_value(k, 100) for k in range(10)]
    assert bids == sorted(bids, reverse=True)
    assert bids[0] == pytest.approx(0.5 / 100)
    assert bids[3] == pytest.approx(1 / 5 / 100)
    assert success_value(4, 50, stakes=2, prior_passes=0.5, prior_failures=4.5) == pytest.approx(2 * 0.5 / 9 / 50)


def test_the_next_pass_is_as_likely_as_the_posterior_says():
    # Rates on a fine grid, weighted by the Beta(2, 3) prior and by six failures.
    rates = [(i + 0.5) / 20_000 for i in range(20_000)]
    weights = [r * (1 - r) ** 2 * (1 - r) ** 6 for r in rates]
    mean = sum(w * r for w, r in zip(weights, rates, strict=True)) / sum(weights)
    assert success_value(6, 1, prior_passes=2, prior_failures=3) == pytest.approx(mean, abs=1e-6)


def test_a_searchs_own_score_is_scaled():
    assert frontier_value(0.4, 200, stakes=3) == pytest.approx(3 * 0.4 / 200)
    assert frontier_value(0.0, 200) == 0.0


@pytest.mark.parametrize(
    "broken",
    [
        lambda: success_value(-1, 10),
        lambda: success_value(0, 0),
        lambda: success_value(0, 10, stakes=math.nan),
        lambda: success_value(0, 10, stakes=-1.0),
        lambda: success_value(0, 10, prior_passes=0.0),
        lambda: success_value(0, 10, prior_failures=math.nan),
        lambda: frontier_value(1.1, 10),
        lambda: frontier_value(-0.1, 10),
        lambda: frontier_value(math.nan, 10),
        lambda: frontier_value(0.5, math.inf),
        lambda: frontier_value(0.5, 10, stakes=math.nan),
    ],
)
def test_malformed_bids(broken):
    with pytest.raises(SpecError):
        broken()


def test_expected_tokens_shrink_towards_the_prior():
    tokens = ExpectedTokens(strength=2.0)
    assert tokens.mean(100) == 100
    tokens.add(400)
    assert tokens.mean(100) == pytest.approx((200 + 400) / 3)
    for _ in range(1000):
        tokens.add(400)
    assert tokens.mean(100) == pytest.approx(400, rel=0.01)


def test_expected_tokens_never_divide_by_nothing():
    tokens = ExpectedTokens()
    for _ in range(100):
        tokens.add(0)
    assert tokens.mean(0.5) == 1.0


def test_expected_tokens_errors():
    with pytest.raises(SpecError):
        ExpectedTokens(0)
    with pytest.raises(SpecError):
        ExpectedTokens().add(-1)
    with pytest.raises(SpecError):
        ExpectedTokens().mean(math.nan)
