"""What a verifier is, and the wrapper that holds one to it.

A verifier is one async callable from a question and its candidates to verdicts. Third parties write them, models back
them, sandboxes run them: ``checked`` turns whatever they do into verdicts, so that a bad verifier costs scores, never
a row. It owns no state.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pipeline.records import Item, Sample, Verdict

MAX_ERROR = 500
"""Characters of an error kept in a verdict: it is written once a sample."""


class Verifier(Protocol):
    """Scores candidates of one question.

    - One verdict a sample, in their order, filed under ``name``. No samples: an empty list, and nothing is started.
    - ``score`` is a finite number in [0, 1], 1 is best; or None with an ``error`` where the sample cannot be judged. A
      wrong, unparsable or hostile answer is a 0, not an error; a missing reference is an error, not a 0.
    - A verdict depends on the question (``Item.given`` included) and that sample alone, never on the samples beside
      it: one call with n samples is n calls with one. It never changes what it is given.
    - ``tokens`` ≥ 0 is what the verdict cost; it is charged to the budget, whatever the verdict. No more than its
      section's ``worst_tokens``, which is reserved for it.
    - Many calls may run at once. A call bounds its own work: seconds on any text, a megabyte included.
    - Cancelled, it stops and leaves nothing running: no task, no process. It can be called again afterwards.

    ``verifiers.conformance`` checks all of this for any verifier.

    Raises:
        VerifierError: it failed in a way that is not a verdict, for example its backend cannot start.
    """

    @property
    def name(self) -> str:
        """What its verdicts are filed under."""
        ...

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        """Judge ``samples`` of ``item``."""
        ...


@runtime_checkable
class Closable(Protocol):
    """A verifier that holds processes or connections."""

    async def close(self) -> None:
        """Let go of them. Idempotent."""
        ...


class Checked:
    """A verifier held to the contract: every call returns exactly one valid verdict a sample.

    Raises nothing but cancellation.
    """

    def __init__(self, verifier: Verifier, seconds: float, worst_tokens: int | None = None) -> None:
        """``worst_tokens``: what one verdict may cost, as its section says; None: whatever it says."""
        self._verifier = verifier
        self._seconds = seconds
        self._worst_tokens = worst_tokens

    @property
    def name(self) -> str:
        return self._verifier.name

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                verdicts = await self._verifier(item, samples)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                return self._all(samples, f"no verdict within {self._seconds:g} s")
            return self._all(samples, f"{type(error).__name__}: {error}")
        if not isinstance(verdicts, list | tuple) or len(verdicts) != len(samples):
            got = len(verdicts) if isinstance(verdicts, list | tuple) else type(verdicts).__name__
            return self._all(samples, f"broke its contract: one verdict a sample ({len(samples)}) expected, got {got}")
        return [self._paid(self._one(verdict)) for verdict in verdicts]

    @property
    def stuck(self) -> bool:
        """Does the verifier inside ask to be replaced with its process? See ``verifiers.function``."""
        return bool(getattr(self._verifier, "stuck", False))

    async def close(self) -> None:
        """Close the verifier inside, where it has something to close."""
        if isinstance(self._verifier, Closable):
            await self._verifier.close()

    def _all(self, samples: Sequence[Sample], error: str) -> list[Verdict]:
        return [self._error(error) for _ in samples]

    def _one(self, verdict: Verdict) -> Verdict:
        if not isinstance(verdict, Verdict):
            return self._error(f"broke its contract: a Verdict expected, got {type(verdict).__name__}")
        if verdict.score is None:
            if not isinstance(verdict.error, str) or not verdict.error:
                return self._error("broke its contract: neither score nor error", verdict)
            return verdict if _is_cost(verdict.tokens) else self._error(verdict.error, verdict)
        if verdict.error is not None:
            return self._error(f"broke its contract: a score beside the error: {verdict.error}", verdict)
        if not isinstance(verdict.score, int | float) or not math.isfinite(verdict.score):
            return self._error(f"broke its contract: score {verdict.score!r} is not a number", verdict)
        if not 0 <= verdict.score <= 1:
            return self._error(f"broke its contract: score {verdict.score!r} is outside [0, 1]", verdict)
        if not _is_cost(verdict.tokens):
            return self._error(f"broke its contract: tokens {verdict.tokens!r} is no count", verdict)
        return verdict

    def _paid(self, verdict: Verdict) -> Verdict:
        """Held to the cost that was reserved for it: the budget is a ceiling, whatever a verifier claims."""
        worst = self._worst_tokens
        if worst is None or verdict.tokens <= worst:
            return verdict
        error = f"broke its contract: it cost {verdict.tokens} tokens, its section's worst_tokens says {worst}"
        return Verdict(self.name, error=error, tokens=worst)

    def _error(self, error: str, verdict: Verdict | None = None) -> Verdict:
        # What was spent stays spent, whatever came of it.
        spent = verdict.tokens if verdict is not None and _is_cost(verdict.tokens) else 0
        return Verdict(self.name, error=error[:MAX_ERROR], tokens=spent)


def _is_cost(tokens: object) -> bool:
    return isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0


def checked(verifier: Verifier, seconds: float, worst_tokens: int | None = None) -> Checked:
    """``verifier`` with its contract enforced; a call past ``seconds`` is cancelled and judged an error."""
    return Checked(verifier, seconds, worst_tokens)
