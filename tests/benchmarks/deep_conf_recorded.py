"""DeepConf over recorded traces: each is cut, by the shipped rule, at the very token where an engine would cut it.

Runs the strategies of live jobs in memory, without market or engine; for ``tests.benchmarks.deep_conf``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.engines.confidence import GroupConfidence, min_group_confidence, token_confidence
from pipeline.records import Item, Sample
from pipeline.spec import JobSpec
from strategies.base import Draw, Solution, Strategy
from tests.fake_session import FakeSession
from verifiers.canonical import canonical_for
from verifiers.extract import make_extractor

DATA = Path(__file__).resolve().parents[2] / "../shared/data/smollm2_arithmetic_360x40.parquet"


@dataclass(frozen=True)
class Question:
    """One recorded question: its traces whole, and the confidence of each of their tokens where they are to be cut."""

    item_id: str
    gold: str
    traces: list[Sample]
    confidences: list[list[float]]


@dataclass(frozen=True)
class Course:
    """What a strategy made of one question. ``tokens``: completion tokens paid for."""

    right: bool
    tokens: int
    traces: int
    cut: int
    cut_tokens: int


def load(path: Path) -> list[Question]:
    import pyarrow.parquet as pq

    questions: dict[str, Question] = {}
    for row in pq.read_table(path).to_pylist():
        question = questions.setdefault(row["question_id"], Question(row["question_id"], row["gold"], [], []))
        logprobs = row["token_logprobs"]
        question.confidences.append(row["token_confidence"])
        question.traces.append(
            Sample(
                question.item_id,
                row["sample_index"],
                prompt_key="",
                text="",
                answer=row["answer"],
                completion_tokens=row["completion_tokens"],
                mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
                finish_reason=row["finish_reason"],
            )
        )
    return list(questions.values())


def course(strategy: Strategy, question: Question, order: Sequence[int], whole: int) -> Course:
    """The strategy over a question's traces in that order; the first ``whole`` of them are those without a bar."""

    def script(draw: Draw, index: int) -> Sample | None:
        place = index if draw.cut_below is None else whole + index
        return _drawn(question, order[place], draw) if place < len(order) else None

    session = FakeSession(script)
    solution = driven(strategy.solve(Item(question.item_id, prompt=""), session))
    cut = [sample for sample in session.drawn if sample.finish_reason == "cut"]
    return Course(
        right=solution.answer == question.gold,
        tokens=sum(sample.completion_tokens for sample in session.drawn),
        traces=len(session.drawn),
        cut=len(cut),
        cut_tokens=sum(sample.completion_tokens for sample in cut),
    )


def driven(solving: Coroutine[Any, Any, Solution]) -> Solution:
    """What a strategy comes to whose session never waits."""
    try:
        solving.send(None)
    except StopIteration as end:
        solution: Solution = end.value
        return solution
    raise AssertionError("the session waited")


def orders(questions: Sequence[Question], repeats: int, seed: int) -> list[list[list[int]]]:
    """For each repeat and question an order of its traces, from the seed, the repeat and the question's id alone."""

    def order(repeat: int, question: Question) -> list[int]:
        digest = hashlib.sha256(f"{seed}/{repeat}/{question.item_id}".encode()).digest()
        return [int(i) for i in np.random.default_rng(list(digest)).permutation(len(question.traces))]

    return [[order(repeat, question) for question in questions] for repeat in range(repeats)]


def _drawn(question: Question, number: int, draw: Draw) -> Sample:
    """A recorded trace as an engine returns it under a bar."""
    trace = question.traces[number]
    if draw.group is None:
        return trace
    confidences = question.confidences[number]
    if draw.cut_below is not None:
        watched = GroupConfidence(draw.group)
        for count, confidence in enumerate(confidences[:-1], start=1):
            watched.add(confidence)
            if watched.below(draw.cut_below):
                return replace(
                    trace,
                    answer=None,
                    completion_tokens=count,
                    mean_logprob=None,
                    min_group_confidence=watched.lowest,
                    finish_reason="cut",
                )
    return replace(trace, min_group_confidence=min_group_confidence(confidences, draw.group))


def record(spec: JobSpec, questions: Sequence[Mapping[str, str]], n: int, path: Path) -> None:
    """``n`` whole traces of each question (id, prompt, gold) in one plain vLLM call, with every token's confidence."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from actors.engines.bundled import resolve_model
    from actors.engines.devices import environment
    from actors.engines.vllm_engine import _arguments, _own_environment, prepare_environment

    prepare_environment(spec)
    from vllm import LLM, SamplingParams

    arguments = _arguments(spec, resolve_model(spec.model.name))
    with environment(_own_environment(spec, None)):
        llm = LLM(**{name: value for name, value in arguments.items() if name != "disable_log_stats"})
    sampling = spec.sampling
    params = SamplingParams(
        n=n,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
        logprobs=sampling.logprobs,
    )
    outputs = llm.generate([question["prompt"] for question in questions], params, use_tqdm=False)
    extract, canonical = make_extractor(spec.answer), canonical_for(spec.answer)
    rows = []
    for question, output in zip(questions, outputs, strict=True):
        for index, one in enumerate(output.outputs):
            told = [[entry.logprob for entry in position.values()] for position in one.logprobs]
            rows.append(
                {
                    "question_id": question["id"],
                    "gold": question["gold"],
                    "sample_index": index,
                    "text": one.text,
                    "answer": canonical(extract(one.text)),
                    "completion_tokens": len(one.token_ids),
                    "finish_reason": one.finish_reason,
                    # vLLM names the chosen token first.
                    "token_logprobs": [candidates[0] for candidates in told],
                    "token_confidence": [token_confidence(candidates) for candidates in told],
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), path)
