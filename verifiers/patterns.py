"""A regular expression over completions, bounded in time.

A user's pattern may backtrack without end on hostile text. The ``regex`` package ends a search at its deadline and
releases the interpreter while it searches, so it runs in a thread and the event loop goes on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import regex  # type: ignore[import-untyped]

from pipeline.records import Item, Sample, Verdict
from pipeline.verifier_spec import RegexSpec
from verifiers.rules import UNPARSED

MAX_TIMEOUTS = 3
"""Searches of one call that may run out of time; the rest of its samples are then not searched."""


class RegexVerifier:
    """1 where ``pattern`` is found in the completion or the answer; with ``absent``, where it is not."""

    def __init__(self, spec: RegexSpec) -> None:
        self.name = spec.label
        self._spec = spec
        self._pattern = regex.compile(spec.pattern, regex.IGNORECASE if spec.ignore_case else 0)

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._search_all, list(samples), stop)
        finally:
            stop.set()

    def _search_all(self, samples: list[Sample], stop: threading.Event) -> list[Verdict]:
        verdicts: list[Verdict] = []
        timeouts = 0
        for sample in samples:
            if stop.is_set() or timeouts >= MAX_TIMEOUTS:
                verdicts.append(Verdict(self.name, error="not searched: the pattern ran out of time on other samples"))
                continue
            verdict = self._search(sample)
            timeouts += verdict.error is not None
            verdicts.append(verdict)
        return verdicts

    def _search(self, sample: Sample) -> Verdict:
        text = sample.text if self._spec.on == "text" else sample.answer
        if text is None:
            return Verdict(self.name, score=0.0, detail=UNPARSED)
        search = self._pattern.fullmatch if self._spec.whole else self._pattern.search
        try:
            found = search(text, timeout=self._spec.timeout, concurrent=True) is not None
        except TimeoutError:
            return Verdict(self.name, error=f"the pattern had no result within {self._spec.timeout:g} s")
        return Verdict(self.name, score=float(found != self._spec.absent))
