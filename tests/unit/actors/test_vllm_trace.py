"""What the vLLM engine makes of what vLLM returns, piece by piece; vLLM itself is in tests/integration."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.base import Prompt, Request
from actors.engines.confidence import min_group_confidence
from actors.engines.vllm_engine import _Trace

GROUP = 3


def request(bar: float | None = None) -> Request:
    return Request("r", Prompt((1, 2), "p"), 1.0, 0, "q", cut_below=bar, group=GROUP)


def piece(confidences, finish: str | None = None, candidates: int = 2, total: float = -1.0):
    """A RequestOutput that brings so many tokens, each with candidates of one log-probability."""
    logprobs = [{rank: SimpleNamespace(logprob=-c) for rank in range(candidates)} for c in confidences]
    best = SimpleNamespace(
        text="x" * len(confidences),
        token_ids=[0] * len(confidences),
        logprobs=logprobs if candidates else None,
        cumulative_logprob=total if candidates else None,
        finish_reason=finish,
    )
    return SimpleNamespace(outputs=[best], finished=finish is not None, prompt_token_ids=[1, 2], num_cached_tokens=1)


def told(trace: _Trace, *pieces) -> list[bool]:
    return [trace.add(one) for one in pieces]


def test_token_by_token_it_asks_once_for_an_abort_and_counts_what_came_before_it():
    trace = _Trace(request(2.0))
    pieces = [piece([c]) for c in (3.0, 1.0, 2.0, 1.5, 0.5)]
    # Means of three: 2.0, then 1.5 at the fourth token; the fifth was on its way.
    assert told(trace, *pieces, piece([], "abort", total=-6.0)) == [False, False, False, True, False, False]
    found = trace.completion()
    assert (found.finish_reason, found.completion_tokens, found.text) == ("cut", 5, "xxxxx")
    assert found.mean_logprob == pytest.approx(-6.0 / 5)
    assert found.min_group_confidence == pytest.approx(4.0 / 3)
    assert (found.prompt_tokens, found.cached_prompt_tokens) == (2, 1)


def test_a_trace_that_ends_by_itself_as_it_falls_is_no_cut():
    trace = _Trace(request(2.0))
    assert told(trace, piece([3.0, 1.0]), piece([1.0], "stop")) == [False, False]
    found = trace.completion()
    assert (found.finish_reason, found.completion_tokens) == ("stop", 3)
    assert found.min_group_confidence == pytest.approx(5.0 / 3)


def test_one_that_ended_before_the_abort_reached_it_is_a_cut_all_the_same():
    trace = _Trace(request(2.0))
    assert told(trace, piece([1.0] * 3), piece([1.0], "stop")) == [True, False]
    assert (trace.completion().finish_reason, trace.completion().completion_tokens) == ("cut", 4)


@pytest.mark.parametrize("candidates", [0, 1])
def test_without_other_candidates_there_is_no_confidence_and_no_cut(candidates):
    trace = _Trace(request(1e9))
    assert (
        told(trace, piece([1.0] * 5, candidates=candidates), piece([], "length", candidates=candidates)) == [False] * 2
    )
    assert trace.completion().min_group_confidence is None
    assert trace.completion().finish_reason == "length"


def test_what_the_engine_never_saw_cost_nothing():
    found = _Trace(request()).completion()
    assert (found.finish_reason, found.completion_tokens, found.mean_logprob) == ("abort", 0, None)
    assert found.prompt_tokens == found.cached_prompt_tokens == 2


@given(st.lists(st.lists(st.floats(0, 9), max_size=5), max_size=8), st.floats(0, 9))
def test_in_pieces_it_is_what_it_is_at_once(pieces, bar):
    everything = [c for one in pieces for c in one]
    whole, parts = _Trace(request()), _Trace(request(bar))
    assert told(whole, piece(everything, "stop")) == [False]
    asked = told(parts, *map(piece, pieces), piece([], "stop"))
    assert sum(asked) <= 1
    same = (whole.completion(), parts.completion())
    assert len({(one.text, one.completion_tokens, one.min_group_confidence) for one in same}) == 1
    lowest = min_group_confidence(everything, GROUP)
    assert any(asked) == (len(everything) >= GROUP and lowest < bar)
