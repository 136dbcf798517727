"""Verdicts of a question's samples, and whether its answer is correct.

The ``Judge`` interface is what a worker sees. ``Panel`` holds the job's verifiers side by side, wherever they run, and
asks each only what it has not said yet; ``RuleJudge`` runs all of them in its own process, ``actors.verifier`` sends
those that are not cheap to a pool. ``Bench`` is the verifiers themselves, with counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import PonderError, StrategyError
from pipeline.records import Item, Sample, Verdict
from pipeline.spec import JobSpec
from pipeline.verifier_kinds import by_answer, label_of, worst_tokens
from verifiers.contract import MAX_ERROR, Checked, Closable, checked
from verifiers.registry import Correctness, make_verifier

CHECK_SECONDS = 120.0
"""One verifier's whole check of a question's samples, its wait for a child process included."""
TIMEOUTS = 10
"""A check may take this many of its verifier's own time-outs, where that is longer."""
REMEMBERED = 4_096
"""Open questions whose verdicts are kept, so that samples verified on the way are not checked again at the end."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """``verdicts[i]`` are those of sample ``i``, in the order of the job's verifiers; one that was not asked of it is
    left out. ``correct`` is None where there is no reference."""

    verdicts: tuple[tuple[Verdict, ...], ...]
    correct: bool | None


class Judge(Protocol):
    """Scores samples. Never raises for what a verifier does: that is an error verdict."""

    async def judge(self, item: Item, samples: Sequence[Sample], answer: str | None) -> Judgement:
        """A finished question: verdicts on all samples, and whether ``answer`` is correct. Forgets it then.

        Verifiers whose checks are free are asked whatever they have not said; of the others, what was said stands.
        """
        ...

    async def check(
        self, item: Item, samples: Sequence[Sample], verifier: str, seen: Sequence[Sample] = ()
    ) -> list[Verdict]:
        """What one verifier says of these samples of an open question, ``item.given`` in hand. Raises StrategyError for
        a name it has not.

        What was said before, to us or to ``seen`` (samples with their verdicts), is said again at no cost; of samples
        that are checked as one, the first carries it.
        """
        ...


Run = Callable[[Item, Sequence[Sample]], Awaitable[list[Verdict]]]


@dataclass(frozen=True, slots=True)
class Column:
    """One verifier of a panel. ``run`` may raise PonderError: error verdicts then. ``free``: costs no tokens."""

    name: str
    by_answer: bool
    run: Run
    free: bool = True

    def key(self, sample: Sample) -> Hashable:
        """Samples of one question with one key are checked as one."""
        return sample.answer if self.by_answer else (sample.answer, sample.text)


@dataclass(frozen=True, slots=True)
class _Said:
    """A verdict and the sample (prompt key, index) that carries its cost."""

    verdict: Verdict
    payer: tuple[str, int]


class Panel:
    """Verifiers side by side. Verdicts align with samples and verifiers, always."""

    def __init__(self, columns: Sequence[Column], remembered: int = REMEMBERED) -> None:
        self._columns, self._remembered = tuple(columns), remembered
        self._said: OrderedDict[Hashable, list[dict[Hashable, _Said]]] = OrderedDict()

    async def finish(self, item: Item, samples: Sequence[Sample]) -> list[tuple[Verdict, ...]]:
        """The verdicts of ``Judge.judge``; the question is forgotten then."""
        columns = await asyncio.gather(*(self._last_word(at, item, samples) for at in range(len(self._columns))))
        self._said.pop(_question(item), None)
        rows = zip(*columns, strict=True) if columns else ((),) * len(samples)
        return [tuple(one for one in row if one is not None) for row in rows]

    async def check(
        self, item: Item, samples: Sequence[Sample], verifier: str, seen: Sequence[Sample] = ()
    ) -> list[Verdict]:
        """See ``Judge.check``."""
        at = next((at for at, column in enumerate(self._columns) if column.name == verifier), None)
        if at is None:
            raise StrategyError(f"the job has no verifier called {verifier!r}")
        return await self._column(at, item, samples, seen) if samples else []

    async def _last_word(self, at: int, item: Item, samples: Sequence[Sample]) -> list[Verdict | None]:
        """What stands, and what a free verifier adds to it."""
        column = self._columns[at]
        found: list[Verdict | None] = [said_by(sample, column.name) for sample in samples]
        asked = [sample for sample, verdict in zip(samples, found, strict=True) if verdict is None]
        if not column.free or not asked:
            return found
        fresh = iter(await self._column(at, item, asked, samples))
        return [verdict if verdict is not None else next(fresh) for verdict in found]

    def _recall(self, item: Item) -> list[dict[Hashable, _Said]]:
        question = _question(item)
        said = self._said.setdefault(question, [{} for _ in self._columns])
        self._said.move_to_end(question)
        while len(self._said) > self._remembered:
            self._said.popitem(last=False)
        return said

    async def _column(self, at: int, item: Item, samples: Sequence[Sample], seen: Sequence[Sample]) -> list[Verdict]:
        column, known = self._columns[at], self._recall(item)[at]
        for sample in seen:
            verdict = said_of(sample, column.name, item.given_key)
            if verdict is not None and verdict.score is not None:
                known.setdefault((item.given, column.key(sample)), _Said(verdict, _name(sample)))
        keys = [(item.given, column.key(sample)) for sample in samples]
        first = dict(zip(reversed(keys), reversed(samples), strict=True))
        asked = [key for key in dict.fromkeys(keys) if key not in known]
        fresh: dict[Hashable, _Said] = {}
        if asked:
            verdicts = await _run(column, item, [first[key] for key in asked])
            fresh = {key: _Said(said, _name(first[key])) for key, said in zip(asked, verdicts, strict=True)}
            # An error may pass; what was paid for it is told once, now.
            known.update({key: said for key, said in fresh.items() if said.verdict.score is not None})
        found = [fresh[key] if key in fresh else known[key] for key in keys]
        return [_billed(said, sample) for said, sample in zip(found, samples, strict=True)]


class Bench:
    """The job's verifiers by their position, and the counts of what they did."""

    def __init__(self, spec: JobSpec, only: Sequence[int] | None = None) -> None:
        """``only``: positions of the verifiers to make; default all. Raises SpecError."""
        self.names = [label_of(one) for one in spec.verifiers]
        wanted = range(len(spec.verifiers)) if only is None else only
        self._verifiers: dict[int, Checked] = {
            index: checked(
                make_verifier(spec.verifiers[index], spec.answer),
                check_seconds(spec, index),
                worst_tokens(spec.verifiers[index]),
            )
            for index in wanted
        }
        self._correctness = Correctness(spec.answer)
        self._stats = BenchStats()

    @property
    def stuck(self) -> bool:
        """Does a verifier ask to be replaced with its process?"""
        return any(verifier.stuck for verifier in self._verifiers.values())

    @property
    def stats(self) -> BenchStats:
        """Counts since the start."""
        return self._stats

    async def check(self, index: int, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        """One verdict a sample from verifier ``index``. Raises nothing but cancellation."""
        began = time.monotonic()
        verdicts = await self._verifiers[index](item, samples)
        old = self._stats
        self._stats = BenchStats(
            checks=old.checks + 1,
            samples=old.samples + len(verdicts),
            errors=old.errors + sum(verdict.score is None for verdict in verdicts),
            tokens=old.tokens + sum(verdict.tokens for verdict in verdicts),
            seconds=old.seconds + time.monotonic() - began,
        )
        return verdicts

    async def correct(self, answer: str | None, reference: str | None) -> bool | None:
        """Is the answer the reference? None where nothing could tell."""
        try:
            return await self._correctness.correct(answer, reference)
        except PonderError:
            return None

    async def close(self) -> None:
        """End helper processes of the verifiers."""
        for closing in (*self._verifiers.values(), self._correctness):
            if isinstance(closing, Closable):
                await closing.close()


@dataclass(frozen=True, slots=True)
class BenchStats:
    """Checks, samples, error verdicts, tokens charged, and wall-clock seconds summed over checks."""

    checks: int = 0
    samples: int = 0
    errors: int = 0
    tokens: int = 0
    seconds: float = 0.0


class RuleJudge:
    """Runs all the job's verifiers in this process."""

    def __init__(self, spec: JobSpec) -> None:
        self._bench = Bench(spec)
        self._panel = Panel([local_column(spec, index, self._bench) for index in range(len(spec.verifiers))])

    async def judge(self, item: Item, samples: Sequence[Sample], answer: str | None) -> Judgement:
        """See ``Judge``."""
        verdicts = await self._panel.finish(item, samples)
        return Judgement(tuple(verdicts), await self._bench.correct(answer, item.reference))

    async def check(
        self, item: Item, samples: Sequence[Sample], verifier: str, seen: Sequence[Sample] = ()
    ) -> list[Verdict]:
        """See ``Judge``."""
        return await self._panel.check(item, samples, verifier, seen)

    async def close(self) -> None:
        """End helper processes of the verifiers."""
        await self._bench.close()


def check_seconds(spec: JobSpec, index: int) -> float:
    """What one check by verifier ``index`` may take, all told."""
    timeout: float = getattr(spec.verifiers[index], "timeout", 0.0)
    return max(CHECK_SECONDS, TIMEOUTS * timeout)


def local_column(spec: JobSpec, index: int, bench: Bench) -> Column:
    """Verifier ``index`` as a column that runs in this process."""

    async def run(item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        return await bench.check(index, item, samples)

    return column(spec, index, run)


def column(spec: JobSpec, index: int, run: Run) -> Column:
    """Verifier ``index`` as a column that ``run`` checks."""
    section = spec.verifiers[index]
    return Column(label_of(section), by_answer(section), run, free=not worst_tokens(section))


async def _run(column: Column, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
    try:
        verdicts = await column.run(item, samples)
    except PonderError as error:
        verdicts = [Verdict(column.name, error=str(error)[:MAX_ERROR]) for _ in samples]
    key = item.given_key
    return verdicts if key is None else [dataclasses.replace(verdict, given=key) for verdict in verdicts]


def _billed(said: _Said, sample: Sample) -> Verdict:
    if said.verdict.tokens == 0 or said.payer == _name(sample):
        return said.verdict
    return dataclasses.replace(said.verdict, tokens=0)


def said_by(sample: Sample, verifier: str) -> Verdict | None:
    """What was said last of a sample by the verifier of that name, whatever it was given."""
    return next((verdict for verdict in reversed(sample.verdicts) if verdict.verifier == verifier), None)


def said_of(sample: Sample, verifier: str, given: str | None) -> Verdict | None:
    """What was said of a sample by the verifier of that name where it was given this (``Item.given_key``)."""
    said = (verdict for verdict in sample.verdicts if verdict.verifier == verifier and verdict.given == given)
    return next(said, None)


def _name(sample: Sample) -> tuple[str, int]:
    return sample.prompt_key, sample.sample_index


def _question(item: Item) -> Hashable:
    return item.item_id, item.reference
