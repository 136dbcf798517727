"""Bids: their shape, their limits, their errors."""

import math

import pytest

from budgets.value import ExpectedTokens, voting_value
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
