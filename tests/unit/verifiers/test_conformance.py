"""The suite passes what keeps the contract, ours among it, and names each clause that something breaks."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.records import Item, Sample, Verdict
from pipeline.spec import AnswerSpec
from pipeline.verifier_spec import (
    AllSpec,
    AnySpec,
    ChoiceSpec,
    ExactSpec,
    FunctionSpec,
    JsonSchemaSpec,
    MathSpec,
    NumericSpec,
    ReasoningGymSpec,
    RegexSpec,
    VerifierSection,
    WeightedSpec,
)
from verifiers.conformance import NotConforming, assert_conforms, check
from verifiers.registry import make_verifier

ITEM = Item("q", prompt="?", reference="1", payload="{}")
SAMPLES = [Sample("q", i, prompt_key="k", text=f'{{"a": {i}}}', answer=str(i)) for i in range(3)]


def by_length(item: Item, sample: Sample) -> float:
    return 1 / (1 + len(sample.text))


HERE = f"{__name__}:by_length"
OURS: list[VerifierSection] = [
    ExactSpec(),
    NumericSpec(),
    NumericSpec(units="convert"),
    ChoiceSpec(choices="012"),
    RegexSpec(pattern="(a|1)+$"),
    JsonSchemaSpec(definition={"properties": {"a": {"const": 1}}}),
    MathSpec(timeout=2),
    ReasoningGymSpec(task="basic_arithmetic", timeout=5),
    FunctionSpec(function=HERE),
    AllSpec(of=[ExactSpec(), RegexSpec(pattern="1")]),
    AnySpec(of=[ExactSpec(), RegexSpec(pattern="1")]),
    WeightedSpec(of=[ExactSpec(), FunctionSpec(function=HERE)], weights=[1, 2]),
]


@pytest.mark.parametrize("spec", OURS, ids=[f"{spec.kind}-{number}" for number, spec in enumerate(OURS)])
async def test_our_own_conform(spec: VerifierSection) -> None:
    report = await assert_conforms(lambda: make_verifier(spec, AnswerSpec()), ITEM, SAMPLES)
    assert report.clauses[-1] == "nothing left"


class Fake:
    """Scores by answer, and misbehaves as ``say`` does."""

    name = "fake"

    def __init__(self, say: Callable[[Fake, Sequence[Sample]], Any]) -> None:
        self.say = say
        self.calls = 0
        self.child: Any = None
        self.task: Any = None

    def good(self, samples: Sequence[Sample]) -> list[Verdict]:
        return [Verdict("fake", float(sample.answer == "1")) for sample in samples]

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> Any:
        self.calls += 1
        said = self.say(self, samples)
        return await said if asyncio.iscoroutine(said) else said


def scored(score: Any, **fields: Any) -> Callable[[Fake, Sequence[Sample]], Any]:
    return lambda fake, samples: [Verdict("fake", score, **fields) for _ in samples]


def raise_on_long(fake: Fake, samples: Sequence[Sample]) -> Any:
    if any(len(sample.text) > 1000 for sample in samples):
        raise RecursionError("too long")
    return fake.good(samples)


async def leave_a_task(fake: Fake, samples: Sequence[Sample]) -> Any:
    fake.task = asyncio.ensure_future(asyncio.Event().wait())
    await asyncio.sleep(0)
    return fake.good(samples)


async def refuse_to_stop(fake: Fake, samples: Sequence[Sample]) -> Any:
    for _ in range(50):
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await asyncio.Event().wait()
    return fake.good(samples)


def leave_a_child(fake: Fake, samples: Sequence[Sample]) -> Any:
    fake.child = fake.child or subprocess.Popen(["sleep", "60"])
    return fake.good(samples)


def change_inputs(fake: Fake, samples: Sequence[Sample]) -> Any:
    if isinstance(samples, list) and samples:
        samples[0] = replace(samples[0], text="changed")
    return fake.good(samples)


async def hang_on_empty(fake: Fake, samples: Sequence[Sample]) -> Any:
    if not samples:
        await asyncio.Event().wait()
    return fake.good(samples)


BROKEN: list[tuple[str, Any, set[str]]] = [
    ("NaN", scored(float("nan")), {"shape"}),
    ("above 1", scored(1.5), {"shape"}),
    ("a bool", scored(True), {"shape"}),
    ("neither", scored(None), {"shape"}),
    ("both", scored(1.0, error="but"), {"shape"}),
    ("negative cost", scored(1.0, tokens=-1), {"shape"}),
    ("one short", lambda fake, samples: fake.good(samples)[1:], {"shape"}),
    ("a tuple", lambda fake, samples: tuple(fake.good(samples)), {"shape"}),
    ("other name", lambda fake, samples: [replace(v, verifier="x") for v in fake.good(samples)], {"shape"}),
    ("empty", lambda fake, samples: fake.good(samples) if samples else None, {"empty batch"}),
    ("hang on empty", hang_on_empty, {"empty batch"}),
    ("sorted", lambda fake, samples: sorted(fake.good(samples), key=lambda v: v.score or 0), {"order"}),
    (
        "relative",
        lambda fake, samples: [Verdict("fake", 1 / len(samples)) for _ in samples],
        {"batching"},
    ),
    ("drifts", lambda fake, samples: [Verdict("fake", 1 / fake.calls) for _ in samples], {"determinism"}),
    ("changes", change_inputs, {"inputs unchanged"}),
    ("raises", raise_on_long, {"hostile text"}),
    ("task", leave_a_task, {"cancellation"}),
    ("deaf", refuse_to_stop, {"cancellation"}),
    ("child", leave_a_child, {"nothing left"}),
]


@pytest.mark.parametrize(("what", "say", "clauses"), BROKEN, ids=[what for what, _, _ in BROKEN])
async def test_each_broken_clause_is_named(what: str, say: Any, clauses: set[str]) -> None:
    fake = Fake(say)
    try:
        report = await check(lambda: fake, ITEM, SAMPLES, seconds=0.2)
    finally:
        if fake.child is not None:
            fake.child.kill()
            fake.child.wait()
    assert clauses <= {broken.clause for broken in report.broken}
    if not clauses <= {"shape", "order", "determinism", "batching"}:
        assert clauses == {broken.clause for broken in report.broken}


async def test_what_breaks_nothing_conforms_and_what_does_raises() -> None:
    report = await assert_conforms(lambda: Fake(Fake.good), ITEM, SAMPLES)
    assert report.conforms
    with pytest.raises(NotConforming, match="shape: verdict 0: score nan"):
        await assert_conforms(lambda: Fake(scored(float("nan"))), ITEM, SAMPLES)


async def test_a_verifier_that_is_not_deterministic_can_say_so() -> None:
    drifting = Fake(lambda fake, samples: [Verdict("fake", 1 / fake.calls) for _ in samples])
    assert (await check(lambda: drifting, ITEM, SAMPLES, deterministic=False)).conforms


async def test_one_sample_cannot_show_an_order() -> None:
    with pytest.raises(ValueError, match="two samples"):
        await check(lambda: Fake(Fake.good), ITEM, SAMPLES[:1])
