"""A question's verdicts while it is open: the journal first, then the judge; checks that cost go by way of the desk.

Promises: what a verifier said of a sample is asked once, paid once, and durable before the run can end; a check that
costs is reserved at its worst before it starts. Owns no verifier and no sample.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from actors.desk import Check
from actors.judge import Judge, said_of
from budgets.cost import CostModel
from budgets.value import ExpectedTokens
from pipeline.errors import BudgetDenied, StrategyError
from pipeline.records import Item, Judged, Sample, Verdict
from pipeline.spec import JobSpec
from pipeline.verifier_kinds import label_of, worst_tokens

CHECK_CUT = "the check was cut"
"""The error of a check that the end of a life cut: it is made again when it is asked for again."""


class CheckTerms(Protocol):
    """What checks need of the worker they run in."""

    @property
    def cost(self) -> CostModel: ...

    @property
    def worst_of(self) -> dict[str, int]:
        """Tokens one check may cost at most, by the verifier's name."""
        ...

    @property
    def check(self) -> Callable[[Item, Sequence[Sample], str, Sequence[Sample]], Awaitable[list[Verdict]]]:
        """See ``actors.judge.Judge.check``."""
        ...

    @property
    def submit_check(self) -> Callable[[Check], None]:
        """Puts a check that costs on the desk."""
        ...

    @property
    def log(self) -> Callable[[int, Judged], None]:
        """Makes a verdict of a shard's sample durable, soon."""
        ...


class JudgeTerms:
    """The ``CheckTerms`` of a worker."""

    def __init__(
        self,
        spec: JobSpec,
        cost: CostModel,
        judge: Judge,
        submit: Callable[[Check], None],
        log: Callable[[int, Judged], None],
    ) -> None:
        self.cost = cost
        self.worst_of = {label_of(one): worst_tokens(one) for one in spec.verifiers}
        self.submit_check, self.log, self.check = submit, log, judge.check


class Checks:
    """Verdicts of one open question."""

    def __init__(self, item: Item, shard_id: int, terms: CheckTerms, writer: str) -> None:
        self._item, self._shard_id, self._terms, self._writer = item, shard_id, terms, writer
        self._costs: dict[str, ExpectedTokens] = {}

    def expected(self, verifier: str) -> float:
        """Units one more check is expected to cost."""
        worst = self._worst(verifier)
        return self._costs.get(verifier, ExpectedTokens()).mean(worst) if worst else 0.0

    async def verify(
        self, samples: Sequence[Sample], verifier: str, value: float, seen: Sequence[Sample], given: Sequence[str] = ()
    ) -> list[Verdict]:
        """See ``strategies.base.Session.verify``. ``seen``: samples of the question with what was said of them."""
        item = dataclasses.replace(self._item, given=tuple(given)) if given else self._item
        known = [_standing(sample, verifier, item.given_key) for sample in samples]
        asked = [sample for sample, verdict in zip(samples, known, strict=True) if verdict is None]
        if asked:
            fresh = iter(await self._ask(item, asked, verifier, value, seen))
            known = [verdict if verdict is not None else next(fresh) for verdict in known]
        return [verdict for verdict in known if verdict is not None]

    async def _ask(
        self, item: Item, samples: Sequence[Sample], verifier: str, value: float, seen: Sequence[Sample]
    ) -> list[Verdict]:
        worst = self._worst(verifier)

        async def check() -> list[Verdict]:
            try:
                verdicts = await self._terms.check(item, samples, verifier, seen)
            except asyncio.CancelledError:
                # Nobody knows what it had cost by then: no more than this.
                worst_of = self._terms.worst_of[verifier]
                cut = Verdict(verifier, error=CHECK_CUT, tokens=worst_of, given=item.given_key)
                self._keep(samples, [cut] * len(samples) if worst else [])
                raise
            self._keep(samples, verdicts)
            return verdicts

        if not worst:
            return await check()
        paid: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._terms.submit_check(Check(value, worst * len(samples), self._item, self._shard_id, check, paid))
        try:
            verdicts = await paid
        finally:
            # A strategy that goes away in mid-check withdraws what waits; what runs is paid and kept.
            paid.cancel()
        costs = self._costs.setdefault(verifier, ExpectedTokens())
        for verdict in verdicts:
            costs.add(self._terms.cost.of_verdict(verdict))
        return verdicts

    def _keep(self, samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> None:
        for sample, verdict in zip(samples, verdicts, strict=False):
            self._terms.log(self._shard_id, judged(sample, verdict, self._writer))

    def _worst(self, verifier: str) -> int:
        tokens = self._terms.worst_of.get(verifier)
        if tokens is None:
            raise StrategyError(f"the job has no verifier called {verifier!r}")
        return self._terms.cost.of_verdict(Verdict(verifier, tokens=tokens))


def _standing(sample: Sample, verifier: str, given: str | None) -> Verdict | None:
    verdict = said_of(sample, verifier, given)
    return None if verdict is not None and verdict.error == CHECK_CUT else verdict


def with_verdict(sample: Sample, verdict: Verdict) -> Sample:
    """The sample with one more verdict, its last; another by the same verifier, given the same, is replaced."""
    check = (verdict.verifier, verdict.given)
    others = tuple(one for one in sample.verdicts if (one.verifier, one.given) != check)
    return dataclasses.replace(sample, verdicts=(*others, verdict))


def judged(sample: Sample, verdict: Verdict, writer: str) -> Judged:
    """A verdict as the journal keeps it."""
    return Judged(sample.item_id, sample.prompt_key, sample.sample_index, (verdict,), writer)


def not_bought(verifier: str, denied: BudgetDenied) -> Verdict:
    """What stands where the market would not pay for a check."""
    return Verdict(verifier, error=f"not checked: {denied}")
