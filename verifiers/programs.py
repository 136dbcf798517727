"""Programs against tests, in a sandbox: the verifier kind ``programs``.

Promises: a score is 1 only where every case passed in the eyes of a process the program has no way into (see
``verifiers.sandbox``); whatever a program does, it gets a verdict, and ``detail`` names the first failing case or the
limit it hit. Tests that cannot be run are an ``error``, never a 0. Without bubblewrap it refuses to be made, unless the
job says ``unsafe``. Texts in ``detail`` are partly the program's words: data, not facts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.records import Item, Sample, Verdict
from verifiers.confined import clean, each_distinct, limits_of, no_program, refuse_unconfined, sandbox_for
from verifiers.programs_spec import ProgramsSpec
from verifiers.sandbox.cases import BadTests, Cases, Dialogue, read_cases
from verifiers.sandbox.client import Outcome, Sandbox
from verifiers.sandbox.limits import ENDED

MAX_DETAIL = 300
CPU_SHARE = 0.7
"""The kernel counts processor time towards the limit in ticks, and was seen to end programs at 0.78 of it."""


def make_programs(spec: ProgramsSpec) -> ProgramsVerifier:
    """The verifier. Raises SpecError where this machine cannot confine programs and the job does not say ``unsafe``."""
    refuse_unconfined(spec)
    return ProgramsVerifier(spec)


def check_item(spec: ProgramsSpec, item: Item) -> str | None:
    """Why this row's tests cannot be run, or None. Runs nothing."""
    try:
        read_cases(spec, item)
    except BadTests as error:
        return str(error)
    return None


class ProgramsVerifier:
    """Runs each sample's program against its item's tests. See ``ProgramsSpec`` for styles and limits."""

    def __init__(self, spec: ProgramsSpec, sandbox: Sandbox | None = None) -> None:
        self.name = spec.label
        self._spec = spec
        self._limits = limits_of(spec)
        self._sandbox = sandbox or sandbox_for(spec)

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        """One verdict a sample. Raises VerifierError where the sandbox cannot be started."""
        try:
            cases = read_cases(self._spec, item)
        except BadTests as error:
            return [Verdict(self.name, error=str(error)[:MAX_DETAIL]) for _ in samples]
        return await each_distinct(self._spec, samples, lambda program: self._judge(cases, program))

    async def close(self) -> None:
        """Kill all servers and wait until they are gone. Idempotent."""
        await self._sandbox.close()

    async def _judge(self, cases: Cases, program: str | None) -> Verdict:
        why = no_program(program)
        if why is not None:
            return self._fail(why)
        whole = f"{cases.prefix}{program}\n"
        if cases.tests is None:
            return await self._converse(cases.dialogues, whole)
        outcome = await self._sandbox.calls(whole, cases.tests, self._limits)
        return self._read(outcome, cases.total)

    async def _converse(self, dialogues: Sequence[Dialogue], program: str) -> Verdict:
        passed, first = 0, None
        for number, dialogue in enumerate(dialogues):
            outcome = await self._sandbox.script(program, dialogue.given, self._limits)
            if outcome.error is not None:
                return Verdict(self.name, error=outcome.error[:MAX_DETAIL])
            why = self._script_problem(outcome, dialogue)
            passed += why is None
            if why is not None and first is None:
                first = f"case {number + 1} of {len(dialogues)}: {why}"
            if why is not None and not self._spec.partial:
                break
        return self._score(passed, len(dialogues), first)

    def _script_problem(self, outcome: Outcome, dialogue: Dialogue) -> str | None:
        limit = self._limit_hit(outcome)
        if limit is not None:
            return limit
        code = outcome.ended["candidate"].code
        if code != 0:
            return f"exit code {code}{_said(outcome.report)}"
        printed = outcome.printed.decode("utf-8", "replace")
        if _lines(printed) == _lines(dialogue.wanted):
            return None
        return f"expected {dialogue.wanted[:80]!r}, printed {printed[:80]!r}"

    def _read(self, outcome: Outcome, total: int) -> Verdict:
        if outcome.error is not None:
            return Verdict(self.name, error=outcome.error[:MAX_DETAIL])
        if outcome.timed_out:
            return self._fail(f"timed out after {self._limits.wall_seconds:g} s")
        said = _verdict(outcome.verdict, total)
        if said is None:
            code = outcome.ended["referee"].code
            if code < 0:
                # A limit, which what the program returned can have driven the tests into.
                return self._fail(f"the tests were ended by signal {-code}")
            return Verdict(self.name, error=f"the tests ended without a verdict (exit code {code})")
        if "error" in said:
            return Verdict(self.name, error=str(said["error"])[:MAX_DETAIL])
        return self._score(said["passed"], total, self._first(said, outcome, total) if said["passed"] < total else None)

    def _first(self, said: dict[str, Any], outcome: Outcome, total: int) -> str:
        """The first failing case in words, or the limit behind it."""
        first = said["first"] if isinstance(said.get("first"), dict) else {}
        number = first.get("case")
        where = f"case {number + 1} of {total}" if isinstance(number, int) else "a case"
        why = first.get("why", "failed")
        # A program that was well until its verdict is ended too: only what its referee missed can have hit a limit.
        return f"{where}: {(self._limit_hit(outcome) if why == ENDED else None) or why}"

    def _limit_hit(self, outcome: Outcome) -> str | None:
        """The limit that ended the program, as far as its end tells."""
        if outcome.timed_out:
            return f"timed out after {self._limits.wall_seconds:g} s"
        if outcome.overflowed:
            return f"printed more than {self._limits.output_kb} KiB"
        ended = outcome.ended.get("candidate")
        if ended is not None and ended.code < 0 and ended.cpu >= CPU_SHARE * self._limits.cpu_seconds:
            return f"used more than {self._limits.cpu_seconds} s of processor time"
        return None

    def _score(self, passed: int, total: int, first: str | None) -> Verdict:
        score = passed / total if self._spec.partial else float(passed == total)
        return Verdict(self.name, score=score, detail=None if first is None else clean(first, MAX_DETAIL))

    def _fail(self, why: str) -> Verdict:
        return Verdict(self.name, score=0.0, detail=clean(why, MAX_DETAIL))


def _verdict(data: bytes, total: int) -> dict[str, Any] | None:
    """What a referee wrote, or None where that is no verdict on ``total`` cases."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    passed = said.get("passed")
    counted = isinstance(passed, int) and not isinstance(passed, bool) and 0 <= passed <= total
    return said if counted or isinstance(said.get("error"), str) else None


def _said(report: bytes) -> str:
    try:
        text = json.loads(report)
    except (ValueError, RecursionError):
        return ""
    return f": {text}" if isinstance(text, str) else ""


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
