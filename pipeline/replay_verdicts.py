"""What a strategy's verifiers say of recorded samples: recorded verdicts, free verifiers run again, recorded scores.

Promises: a recorded verdict is used only where it is known to be this verifier's, at the cost it was recorded at;
a verifier is run only where it is free and needs no more than answer, completion and reference; what is neither is
refused by name. Verdicts are remembered, so that reordered samples are not checked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

from actors.virtual_checks import Said, recorded_score
from pipeline.errors import Unrecorded
from pipeline.recording import Columns, Recording
from pipeline.records import Item, Sample, Verdict
from pipeline.spec import AnswerSpec
from pipeline.strategy_files import StrategyFile
from pipeline.verifier_kinds import by_answer, label_of, worst_tokens

_PURE = ("exact", "numeric", "choice", "math", "regex", "json_schema")
"""Kinds that look at a sample and the reference alone; the others need columns of the question's row too."""
_COMBINED = ("all", "any", "weighted")
_SECONDS = 120.0
_REMEMBERED = 1 << 16


class RecordedVerdicts:
    """Which verifiers a recording has verdicts of, and the most tokens one took. Reads the whole recording once."""

    def __init__(self, recording: Recording, pages: int) -> None:
        self.worst: dict[str, int] = {}
        self.scores = False
        """Whether there is a recorded score."""
        self.text = False
        for span in recording.spans(pages):
            columns = recording.read(span)
            self.scores, self.text = columns.score is not None, columns.text is not None
            if columns.verdicts is None:
                break
            for said in columns.verdicts:
                for name, verdict in said.items():
                    self.worst[name] = max(self.worst.get(name, 0), verdict.tokens)


class Verdicts:
    """The verifiers that one strategy steers by, over one recording. Close it: it may hold processes."""

    def __init__(
        self,
        name: str,
        file: StrategyFile,
        recorded: RecordedVerdicts,
        job_verifiers: list[Any] | None,
        answer: AnswerSpec,
    ) -> None:
        """``job_verifiers``: those of the run that was recorded; None: a plain file, whose verdicts go by name.

        Raises:
            Unrecorded: a verifier of the strategy can neither be looked up nor run here.
        """
        self._name, self._recorded, self._answer = name, recorded, answer
        self._runner: asyncio.Runner | None = None
        self._running: dict[str, Any] = {}
        self._looked_up: set[str] = set()
        self._by_answer: dict[str, bool] = {}
        theirs = {label_of(one): one for one in job_verifiers or []}
        ours = theirs if file.verifiers is None else {label_of(one): one for one in file.verifiers}
        for label in file.strategy.checks:
            self._find(label, ours.get(label), theirs.get(label), job_verifiers is None)
        self._judge = lru_cache(_REMEMBERED)(self._run)
        self._costs: dict[tuple[int, str], dict[Hashable, int]] = {}

    def says(self, columns: Columns, number: int, row: int, verifier: str, given: Sequence[str] = ()) -> Said:
        """See ``actors.virtual_checks.Checking``. Raises Unrecorded for a sample without a verdict."""
        if given:
            raise Unrecorded(f"{self._name}: verifier {verifier!r} is given inputs, which no record tells")
        if verifier in self._looked_up and columns.verdicts is not None:
            verdict = columns.verdicts[row].get(verifier)
            if verdict is not None:
                key = self._key(columns, row, verifier)
                return Said(self._paid(verdict, columns, number, key), key)
        if verifier in self._running:
            code = columns.answer.item(row)
            answer = columns.answers[code] if code >= 0 else None
            text = columns.text[row] if columns.text is not None and not self._by_answer[verifier] else None
            reference = columns.references[number]
            return Said(self._judge(verifier, columns.item_ids[number], reference, answer, text or ""), row)
        if verifier in self._looked_up:
            raise Unrecorded(
                f"{self._name}: sample {columns.sample_index.item(row)} of item {columns.item_ids[number]!r} has no "
                f"verdict of {verifier!r}, and it cannot be run here; `ponder verify` checks every sample of a run"
            )
        return recorded_score(columns, number, row, verifier)

    def worst(self, verifier: str) -> int:
        """Tokens a check takes at most."""
        return self._recorded.worst.get(verifier, 0) if verifier in self._looked_up else 0

    def close(self) -> None:
        """End helper processes. Idempotent."""
        if self._runner is not None:
            for verifier in self._running.values():
                self._runner.run(verifier.close())
            self._runner.close()
            self._runner = None

    def _find(self, label: str, ours: Any, theirs: Any, plain: bool) -> None:
        """Decide where verdicts of one verifier come from."""
        recorded = label in self._recorded.worst
        self._by_answer[label] = ours is not None and by_answer(ours)
        if recorded and (ours == theirs or plain):
            self._looked_up.add(label)
        if ours is not None and _can_run(ours, self._recorded.text):
            from verifiers.contract import checked
            from verifiers.registry import make_verifier

            self._runner = self._runner or asyncio.Runner()
            self._running[label] = checked(make_verifier(ours, self._answer), _SECONDS, 0)
        elif label not in self._looked_up and (ours is not None or not self._recorded.scores):
            why = "was recorded with other settings" if recorded else "was not recorded"
            needs = "it cannot be run here: it needs the question's row, completions, or tokens"
            can = needs if ours is not None else "the strategy file describes no verifier of that name"
            raise Unrecorded(f"{self._name}: what verifier {label!r} says {why}, and {can}")

    def _key(self, columns: Columns, row: int, verifier: str) -> Hashable:
        """What is checked as one: equal answers, or equal answers with equal completions. See ``actors.judge``."""
        if not self.worst(verifier):
            return row
        text = None if self._by_answer[verifier] or columns.text is None else columns.text[row]
        return columns.answer.item(row), text if text is not None or self._by_answer[verifier] else row

    def _paid(self, verdict: Verdict, columns: Columns, number: int, key: Hashable) -> Verdict:
        """The verdict with what it cost: of samples checked as one, the record charges a single one."""
        if not self.worst(verdict.verifier):
            return verdict
        place = (columns.first + number, verdict.verifier)
        if place not in self._costs:
            if len(self._costs) >= _REMEMBERED:
                self._costs.clear()
            self._costs[place] = self._costs_of(columns, number, verdict.verifier)
        return Verdict(verdict.verifier, verdict.score, verdict.error, self._costs[place][key])

    def _costs_of(self, columns: Columns, number: int, verifier: str) -> dict[Hashable, int]:
        low, high = int(columns.starts[number]), int(columns.starts[number + 1])
        assert columns.verdicts is not None, "asked of recorded verdicts"
        costs: dict[Hashable, int] = {}
        for row in range(low, high):
            said = columns.verdicts[row].get(verifier)
            if said is not None:
                key = self._key(columns, row, verifier)
                costs[key] = max(costs.get(key, 0), said.tokens)
        return costs

    def _run(self, verifier: str, item_id: str, reference: str | None, answer: str | None, text: str) -> Verdict:
        assert self._runner is not None, "closed"
        item, sample = Item(item_id, prompt="", reference=reference), Sample(item_id, 0, "", text, answer)
        verdict: Verdict
        [verdict] = self._runner.run(self._running[verifier](item, [sample]))
        return verdict


def _can_run(section: Any, text: bool) -> bool:
    """Is this verifier free, and content with what was recorded?"""
    kind = getattr(section, "kind", "")
    if kind in _COMBINED:
        return all(_can_run(part, text) for part in section.of)
    return kind in _PURE and not worst_tokens(section) and (text or by_answer(section))
