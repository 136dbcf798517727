"""The verifier over a fake sandbox: what each outcome becomes; and the referee's rules."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pipeline.errors import VerifierError
from pipeline.records import Item, Sample, Verdict
from verifiers.confined import NO_PROGRAM
from verifiers.programs import ProgramsVerifier
from verifiers.programs_spec import ProgramsSpec
from verifiers.sandbox.client import Ended, Outcome, Sandbox
from verifiers.sandbox.limits import ENDED, Limits
from verifiers.sandbox.referee import _graft, _same, free_names

FINE = {"candidate": Ended(0, 0.1, 9_000), "referee": Ended(0, 0.1, 9_000)}


class FakeSandbox(Sandbox):
    """Gives prepared outcomes in turn and keeps what it was asked."""

    def __init__(self, *outcomes: Outcome | Exception) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[tuple[Any, ...]] = []

    def _next(self) -> Outcome:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def calls(self, program: str, tests: dict[str, Any], limits: Limits) -> Outcome:
        self.asked.append((program, tests, limits))
        return self._next()

    async def script(self, program: str, given: str, limits: Limits) -> Outcome:
        self.asked.append((program, given, limits))
        return self._next()


def verdict_of(passed: int, why: str | None = None, case: int = 0) -> Outcome:
    first = None if why is None else {"case": case, "why": why}
    return Outcome(FINE, verdict=json.dumps({"passed": passed, "first": first}).encode())


def judged(outcome: Outcome, tests: str = '["assert f(1)", "assert f(2)"]', **fields: Any) -> Verdict:
    style = fields.pop("style", "asserts")
    spec = ProgramsSpec.model_validate({"kind": "programs", "style": style, "on": "answer", **fields})
    verifier = ProgramsVerifier(spec, FakeSandbox(*[outcome] * 2))
    [verdict] = asyncio.run(verifier(Item("one", reference=tests), [Sample("one", 0, "", "", answer="x = 1")]))
    return verdict


@pytest.mark.parametrize(
    ("outcome", "score", "detail"),
    [
        (verdict_of(2), 1.0, None),
        (verdict_of(1, "assertion failed", 1), 0.0, "case 2 of 2: assertion failed"),
        (Outcome(FINE, timed_out=True), 0.0, "timed out after 5 s"),
        (Outcome(FINE | {"referee": Ended(-9, 5.0, 0)}), 0.0, "the tests were ended by signal 9"),
        (
            Outcome({**FINE, "candidate": Ended(-9, 5.0, 0)}, verdict=verdict_of(0, ENDED).verdict),
            0.0,
            "case 1 of 2: used more than 5 s of processor time",
        ),
        (
            Outcome({**FINE, "candidate": Ended(-9, 5.0, 0)}, verdict=verdict_of(0, "assertion failed").verdict),
            0.0,
            "case 1 of 2: assertion failed",
        ),
    ],
)
def test_outcomes(outcome: Outcome, score: float, detail: str | None) -> None:
    assert judged(outcome) == Verdict("programs", score=score, detail=detail)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(error="the sandbox was lost"),
        Outcome(FINE | {"referee": Ended(3, 0.1, 0)}),
        Outcome(FINE, verdict=b'{"error": "the test passes a value"}'),
        Outcome(FINE, verdict=b'{"passed": 3, "first": null}'),
        Outcome(FINE, verdict=b'{"passed": -1, "first": null}'),
        Outcome(FINE, verdict=b'{"passed": true, "first": null}'),
        Outcome(FINE, verdict=b"[1]"),
        Outcome(FINE, verdict=b"[" * 9_000),
    ],
)
def test_what_says_nothing_of_the_program_is_an_error(outcome: Outcome) -> None:
    verdict = judged(outcome)
    assert verdict.score is None
    assert verdict.error


def test_partial_scores() -> None:
    assert judged(verdict_of(1, "no", 1), partial=True).score == 0.5


def printed(text: str, code: int = 0, **more: Any) -> Outcome:
    return Outcome({"candidate": Ended(code, 0.1, 0)}, printed=text.encode(), **more)


@pytest.mark.parametrize(
    ("outcome", "score", "detail"),
    [
        (printed("3\n"), 1.0, None),
        (printed("3  \n\n"), 1.0, None),
        (printed("4\n"), 0.0, "case 1 of 1: expected '3', printed '4\\n'"),
        (printed("3", 1, report=b'"ValueError: no"'), 0.0, "case 1 of 1: exit code 1: ValueError: no"),
        (printed("3", 1, report=b"forged"), 0.0, "case 1 of 1: exit code 1"),
        (printed("3", overflowed=True), 0.0, "case 1 of 1: printed more than 256 KiB"),
        (printed("3", timed_out=True), 0.0, "case 1 of 1: timed out after 5 s"),
    ],
)
def test_scripts(outcome: Outcome, score: float, detail: str | None) -> None:
    verdict = judged(outcome, tests='[{"input": "1 2", "output": "3"}]', style="stdio")
    assert verdict == Verdict("programs", score=score, detail=detail)


async def test_scripts_stop_at_the_first_failure_unless_partial() -> None:
    tests = json.dumps({"inputs": ["1", "2", "3"], "outputs": ["1", "2", "3"]})
    for partial, asked, score in ((False, 2, 0.0), (True, 3, 2 / 3)):
        sandbox = FakeSandbox(printed("1"), printed("no"), printed("3"))
        verifier = ProgramsVerifier(ProgramsSpec(style="stdio", partial=partial), sandbox)
        [verdict] = await verifier(Item("one", reference=tests), [Sample("one", 0, "", "print()")])
        assert (len(sandbox.asked), verdict.score) == (asked, score)


async def test_equal_programs_are_run_once_and_fences_are_opened() -> None:
    sandbox = FakeSandbox(verdict_of(1), verdict_of(0, "no"))
    verifier = ProgramsVerifier(ProgramsSpec(style="asserts", name="tests"), sandbox)
    texts = ["Here:\n```python\nx = 1\n```\nDone.", "x = 1", "y = 1", "  \n"]
    samples = [Sample("one", index, "", text) for index, text in enumerate(texts)]
    verdicts = await verifier(Item("one", reference="assert x"), samples)
    assert [program for program, _, _ in sandbox.asked] == ["x = 1\n", "y = 1\n"]
    assert [verdict.score for verdict in verdicts] == [1.0, 1.0, 0.0, 0.0]
    assert verdicts[3].detail == NO_PROGRAM
    assert {verdict.verifier for verdict in verdicts} == {"tests"}


async def test_tests_that_cannot_be_run_are_errors_and_start_nothing() -> None:
    sandbox = FakeSandbox()
    verdicts = await ProgramsVerifier(ProgramsSpec(style="asserts"), sandbox)(
        Item("one", reference="assert ("), [Sample("one", 0, "", "x = 1")]
    )
    assert [verdict.score for verdict in verdicts] == [None]
    assert sandbox.asked == []


async def test_a_sandbox_that_cannot_start_is_raised() -> None:
    sandbox = FakeSandbox(VerifierError("no"), VerifierError("no"))
    verifier = ProgramsVerifier(ProgramsSpec(style="asserts"), sandbox)
    with pytest.raises(VerifierError):
        await verifier(Item("one", reference="assert x"), [Sample("one", 0, "", "x"), Sample("one", 1, "", "y")])


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (3, 3, True),
        (True, 1, False),
        (1, True, False),
        (3.0, 3, True),
        (0.1 + 0.2, 0.3, True),
        (0.31, 0.3, False),
        (float("nan"), 0.3, False),
        ((1, [2]), [1, [2]], True),
        ([1], [1, 2], False),
        ({1: "a"}, {"1": "a"}, True),
        ({1: "a"}, {"1": "b"}, False),
        ("3", 3, False),
        (None, None, True),
        ([None], [0], False),
        ({1}, [1], False),
    ],
)
def test_equality_where_expected_values_are_json(got: Any, expected: Any, same: bool) -> None:
    assert _same(got, expected, 1e-9) is same


def test_arguments_change_in_place() -> None:
    inner = [3]
    mine: list[Any] = [[1, 2], {"a": inner}, {5}, (inner,), 7]
    kept = list(mine)
    _graft(mine, [[9], {"a": [4, 4], "b": 1}, {6}, ([4, 4],), 8, 1])
    assert mine == [[9], {"a": [4, 4], "b": 1}, {6}, ([4, 4],), 8, 1]
    assert all(one is other for one, other in zip(mine[:3], kept[:3], strict=True))
    assert inner == [4, 4]


def test_free_names() -> None:
    sources = [
        "import os as o, a.b\nx = 1\nassert f(x, y=len(z)) == o.sep + a.b",
        "def g(p):\n    return p + h(p)\ng(1)",
    ]
    assert list(free_names(sources)) == ["f", "z", "h"]
