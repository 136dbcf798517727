"""What programs do, without anyone saying what is right: the verifier kind ``behaviour``.

Each program runs on the item's inputs in the sandbox that ``programs`` uses, and the verdict describes what came of it:
the raw material of clustering by behaviour (Li et al. 2022, "Competition-Level Code Generation with AlphaCode", §4.6)
and of dual execution agreement (Chen et al. 2022, "CodeT: Code Generation with Generated Tests", §2.2). ``score`` is
the share of inputs on which the program did anything but fail; ``detail`` holds a word an input
(``verifiers.sandbox.observer``; here also ``time``, ``exit``, ``output`` and ``unasked``), or says why there is no
behaviour.

A program's outputs are its own words, so this is no verdict on it: a program can pretend any behaviour, and gains by
that no more than the company of those that behave so. It cannot touch what is said of others, nor say more than a hash.

An input that hangs or kills the program is passed over in a fresh process, within the time all inputs share. What
depends on the clock, or comes close to a limit, may be told otherwise the next time; random numbers are seeded.
Programs that keep state between calls see the inputs in their order.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.records import Item, Sample, Verdict
from verifiers.behaviour_spec import BehaviourSpec
from verifiers.confined import clean, each_distinct, limits_of, no_program, refuse_unconfined, sandbox_for
from verifiers.sandbox.cases import BadTests
from verifiers.sandbox.client import Outcome, Sandbox
from verifiers.sandbox.inputs import Inputs, read_inputs
from verifiers.sandbox.limits import Limits
from verifiers.sandbox.observer import digest

MAX_REASON = 300
ROUNDS = 4
"""Processes a program gets for its inputs: after so many that died or hung there is no more to learn."""
SHARE = 0.5
"""Of the time that is left, what a process gets: the other half is for the inputs after one that hangs."""
SHORTEST = 0.05
"""Seconds under which no process is begun."""
_WORD = re.compile(r"[0-9a-f]{16}|\+|![A-Za-z]{0,32}")


def make_behaviour(spec: BehaviourSpec) -> BehaviourVerifier:
    """The verifier. Raises SpecError where this machine cannot confine programs and the job does not say ``unsafe``."""
    refuse_unconfined(spec)
    return BehaviourVerifier(spec)


def check_item(spec: BehaviourSpec, item: Item) -> str | None:
    """Why this row's inputs cannot be run, or None. Runs nothing. Rows that are to get theirs later are well."""
    if spec.inputs_column is None:
        return None
    try:
        read_inputs(spec, item)
    except BadTests as error:
        return str(error)
    return None


class BehaviourVerifier:
    """Runs each sample's program on its item's inputs. See ``BehaviourSpec`` for styles and limits."""

    def __init__(self, spec: BehaviourSpec, sandbox: Sandbox | None = None) -> None:
        self.name = spec.label
        self._spec = spec
        self._limits = limits_of(spec)
        self._sandbox = sandbox or sandbox_for(spec)

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        """One verdict a sample. Raises VerifierError where the sandbox cannot be started."""
        try:
            inputs = read_inputs(self._spec, item)
        except BadTests as error:
            return [Verdict(self.name, error=clean(str(error), MAX_REASON)) for _ in samples]
        return await each_distinct(self._spec, samples, lambda program: self._describe(inputs, program))

    async def close(self) -> None:
        """Kill all servers and wait until they are gone. Idempotent."""
        await self._sandbox.close()

    async def _describe(self, inputs: Inputs, program: str | None) -> Verdict:
        why = no_program(program)
        if why is not None:
            return Verdict(self.name, score=0.0, detail=why)
        whole = f"{inputs.prefix}{program}\n"
        seen = await (self._scripts(inputs, whole) if inputs.texts else self._calls(inputs, whole))
        if seen.error is not None:
            return Verdict(self.name, error=clean(seen.error, MAX_REASON))
        if seen.load is not None:
            return Verdict(self.name, score=0.0, detail=clean(f"the program does not load: {seen.load}", MAX_REASON))
        words = [*seen.words, *["!unasked"] * (inputs.total - len(seen.words))]
        # How an assertion failed is no behaviour: solutions that pass the same tests belong together.
        words = ["!" if held and word[0] == "!" else word for word, held in zip(words, inputs.held, strict=True)]
        done = sum(word[0] != "!" for word in words)
        return Verdict(self.name, score=done / inputs.total, detail=" ".join(words))

    async def _calls(self, inputs: Inputs, program: str) -> _Seen:
        words: list[str] = []
        left = self._limits.wall_seconds
        for _ in range(ROUNDS):
            limits = self._within(left)
            if limits is None:
                break
            outcome = await self._sandbox.observe(program, inputs.job(len(words)), limits)
            seen = _read(outcome, inputs.total - len(words))
            if seen.error is not None or (seen.load is not None and not words):
                return seen
            words += seen.words
            left -= outcome.seconds
            if len(words) == inputs.total:
                break
            if not seen.words or seen.words[-1] != "!ended":
                # It hung on this input, or took its observer along.
                words.append("!time" if outcome.timed_out else "!ended")
        return _Seen(words=tuple(words[: inputs.total]))

    async def _scripts(self, inputs: Inputs, program: str) -> _Seen:
        words: list[str] = []
        left = self._limits.wall_seconds
        for given in inputs.texts:
            limits = self._within(left)
            if limits is None:
                break
            outcome = await self._sandbox.script(program, given, limits)
            if outcome.error is not None:
                return _Seen(error=outcome.error)
            left -= outcome.seconds
            words.append(_printed(outcome))
        return _Seen(words=tuple(words))

    def _within(self, left: float) -> Limits | None:
        """The limits of the next process; None where there is no time for one."""
        seconds = left * SHARE
        return dataclasses.replace(self._limits, wall_seconds=seconds) if seconds >= SHORTEST else None


@dataclass(frozen=True, slots=True)
class _Seen:
    """``words`` of the inputs run; ``load``: why the program did not; ``error``: why nothing could be seen."""

    words: tuple[str, ...] = ()
    load: str | None = None
    error: str | None = None


def _read(outcome: Outcome, wanted: int) -> _Seen:
    """What an observer wrote, up to the first line that it did not."""
    if outcome.error is not None:
        return _Seen(error=outcome.error)
    first, *lines = outcome.verdict.split(b"\n")
    said = _line(first)
    if not isinstance(said, dict):
        # It says so before the first input: the program was still loading, or what it did killed the observer.
        return _Seen(load="it timed out" if outcome.timed_out else "it ended its process")
    if "error" in said:
        return _Seen(error=str(said["error"]))
    if "load" in said:
        return _Seen(load=str(said["load"]))
    words = []
    for line in lines[:wanted]:
        word = _line(line)
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            break
        words.append(word)
    return _Seen(words=tuple(words))


def _line(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _printed(outcome: Outcome) -> str:
    if outcome.timed_out:
        return "!time"
    if outcome.overflowed:
        return "!output"
    if outcome.ended["candidate"].code != 0:
        return "!exit"
    lines = [line.rstrip() for line in outcome.printed.decode("utf-8", "replace").split("\n")]
    return digest("\n".join(lines).rstrip("\n"))
