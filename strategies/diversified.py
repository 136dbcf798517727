"""Structured exploration: different beginnings are looked for first, and only different ones are paid to the end.

Stage 1 draws short *probes* over ``arms`` (templates, temperatures), embeds them and clusters them in sample-index
order (``strategies.clusters``). Stage 2 goes on with the leader of each cluster, largest first, each by its bid;
near-duplicates are cut. A probe that came to its own end is a candidate already. The vote counts a candidate as the
probes it stands for.

- DivSampling (Wang et al. 2025, arXiv:2502.11027): one question asked through perturbed prompts, equally often. Ours
  are instructions in front of the prompt, their *task-agnostic* kind. They show gains for best-of-N and pass@N, and
  that under majority voting diversity may not help: measure before believing.
- Slim-SC (Hong et al. 2025, arXiv:2509.13990): chains whose embedded thoughts are alike are pruned while they run.
  Where we differ: one cut, after ``probe_tokens``, because a request is not paused; the first of a cluster is kept, not
  a random one, so that a re-execution decides alike; and what is pruned keeps its vote through its leader's weight.

Weights are those of stratified sampling: a cluster of s probes with m completed candidates gives each s / m votes, so
the vote estimates the one in which nothing is cut. Its certainty is that of Kish's effective number of votes,
(Σw)² / Σw²: eight alike probes and one completion are one vote, not eight. ``weight`` *one*: a vote a candidate.

A probe's text is tokenised anew when it is gone on with. Where its last token joins differently with what follows
than it was generated, the last block of the cached prefix is computed again: a few tokens, and a text the model might
have split otherwise. A character cut in half is dropped. A continuation may take ``sampling.max_tokens`` beyond the
probe.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from budgets.value import DEFAULT_ALPHA, voting_value
from budgets.votes import p_lead
from pipeline.errors import BudgetDenied, RequestRejected, SpecError
from pipeline.records import Item, Sample, StopReason
from strategies.arms import PLAIN_ARM, Arm
from strategies.base import Draw, Fact, Session, Solution
from strategies.clusters import Leaders, effective_number

DEFAULT_ARMS = (
    PLAIN_ARM,
    Arm("principles", template="Work from first principles, one small step at a time.\n\n{{ prompt }}"),
    Arm("other way", template="Take another way than the first that comes to mind.\n\n{{ prompt }}"),
)
"""The question as it stands and two instructions in front of it: the end of the prompt, where formats live, is kept."""


@dataclass(frozen=True)
class Diversified:
    """See the module. ``keep``: completed candidates a cluster may have before the rest of it is cut.

    ``similarity`` is the cosine from which two probes are near-duplicates. ``early`` False goes on with every probe.
    """

    arms: tuple[Arm, ...] = DEFAULT_ARMS
    probes: int = 8
    probe_tokens: int = 32
    similarity: float = 0.95
    keep: int = 1
    weight: Literal["cluster", "one"] = "cluster"
    confidence: float = 0.95
    alpha: float = DEFAULT_ALPHA
    early: bool = True

    def __post_init__(self) -> None:
        if not self.arms or self.probes < 1 or self.probe_tokens < 1 or self.keep < 1:
            raise SpecError("arms must not be empty; probes, probe_tokens and keep must be >= 1")
        if self.weight not in ("cluster", "one"):
            raise SpecError(f"weight is {self.weight!r}: choose cluster or one")

    @property
    def minimum(self) -> int:
        """One probe, and what follows it."""
        return 2

    @property
    def maximum(self) -> int:
        return 2 * self.probes

    def unstopped(self) -> Diversified:
        """The same with every probe gone on with: what cutting near-duplicates is held against."""
        return dataclasses.replace(self, keep=self.probes, early=False)

    async def solve(self, item: Item, session: Session) -> Solution:
        field_ = _Field(self)
        await self._first(item, session, field_)
        await self._explore(item, session, field_)
        await self._group(session, field_)
        while True:
            place = field_.next_cluster()
            if place is None or (self.early and (field_.p_lead >= self.confidence or field_.decided())):
                break
            value = field_.bid(item, session, field_.continued, field_.pull(place))
            if not await self._continue(field_.next_member(place), session, field_, value):
                break
        return field_.solution(self.early and (field_.p_lead >= self.confidence or field_.decided()))

    async def _first(self, item: Item, session: Session, field_: _Field) -> None:
        """The guaranteed minimum: a probe of the first arm that can be asked, and its end."""
        refused: RequestRejected | None = None
        for arm in self.arms:
            try:
                await self._draw(arm, 1, item, session, field_, math.inf)
                break
            except RequestRejected as error:
                refused = error
        if refused is not None and len(field_.failed) == len(self.arms):
            raise refused
        first = field_.probes[0] if field_.probes else None
        if first is not None and first.unfinished:
            first.cluster = 0
            field_.sizes = [1]
            await self._continue(first, session, field_, math.inf)

    async def _explore(self, item: Item, session: Session, field_: _Field) -> None:
        """The other probes, shared out evenly over the arms, an arm at a time so that a refusal has a name."""
        for place, arm in enumerate(self.arms):
            share = self.probes // len(self.arms) + (place < self.probes % len(self.arms))
            wanted = share - sum(probe.arm is arm for probe in field_.probes)
            if field_.denied or arm.name in field_.failed or wanted < 1:
                continue
            try:
                await self._draw(arm, wanted, item, session, field_, field_.bid(item, session, field_.opened))
            except RequestRejected:
                continue

    async def _draw(self, arm: Arm, n: int, item: Item, session: Session, field_: _Field, value: float) -> None:
        try:
            draw = arm.draw(item)
            drawn = await session.sample(n, value=value, draw=dataclasses.replace(draw, max_tokens=self.probe_tokens))
        except BudgetDenied:
            field_.deny(value)
            return
        except RequestRejected as error:
            field_.failed[arm.name] = str(error)
            raise
        field_.opened += drawn
        field_.probes += [_Probe(arm, draw, sample) for sample in drawn if not sample.aborted]

    async def _group(self, session: Session, field_: _Field) -> None:
        """Cluster the probes; those that ended by themselves are candidates."""
        texts = [probe.sample.text for probe in field_.probes]
        vectors = await session.embed(texts) if len(texts) > 1 else [(1.0,)] * len(texts)
        clusters = Leaders(self.similarity)
        for probe, vector in zip(field_.probes, vectors, strict=True):
            probe.cluster = clusters.add(vector)
            if not probe.unfinished:
                probe.end = probe.sample
        field_.sizes = clusters.sizes

    async def _continue(self, probe: _Probe, session: Session, field_: _Field, value: float) -> bool:
        """Go on with a probe; False where the market will not."""
        # The last character of a cut text may be half of one.
        draw = dataclasses.replace(probe.draw, prefix=probe.sample.text.rstrip("\ufffd"))
        try:
            [sample] = await session.sample(1, value=value, draw=draw)
        except BudgetDenied:
            field_.deny(value)
            return False
        except RequestRejected as error:
            probe.tried = True
            field_.failed[f"{probe.arm.name}, continued"] = str(error)
            return True
        probe.tried = True
        field_.continued.append(sample)
        if not sample.aborted:
            probe.end = sample
        return True


@dataclass
class _Probe:
    """A beginning. ``end``: the completed candidate it led to; ``tried``: it was gone on with, whatever came of it."""

    arm: Arm
    draw: Draw
    sample: Sample
    cluster: int = 0
    tried: bool = False
    end: Sample | None = None

    @property
    def unfinished(self) -> bool:
        return self.sample.finish_reason == "length"

    @property
    def open(self) -> bool:
        return self.unfinished and not self.tried


@dataclass
class _Field:
    """All that was drawn of one question, and the vote over it. Derived afresh at each look: there are few probes."""

    rule: Diversified
    probes: list[_Probe] = field(default_factory=list)
    opened: list[Sample] = field(default_factory=list)
    continued: list[Sample] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    denied: bool = False
    refused_value: float = 0.0

    def deny(self, value: float) -> None:
        self.denied, self.refused_value = True, value

    def members(self, cluster: int) -> list[_Probe]:
        return [probe for probe in self.probes if probe.cluster == cluster]

    def done(self, cluster: int) -> int:
        """Candidates of a cluster that are there, or were tried in vain."""
        return sum(probe.tried or probe.end is not None for probe in self.members(cluster))

    def next_member(self, cluster: int) -> _Probe:
        return next(probe for probe in self.members(cluster) if probe.open)

    def open_clusters(self) -> list[int]:
        return [
            place
            for place in range(len(self.sizes))
            if self.done(place) < self.rule.keep and any(probe.open for probe in self.members(place))
        ]

    def pull(self, cluster: int) -> float:
        """What one more candidate of a cluster weighs, an average cluster's first candidate being 1."""
        if self.rule.weight == "one":
            return 1.0
        return self.sizes[cluster] / (self.done(cluster) + 1) * len(self.sizes) / sum(self.sizes)

    def next_cluster(self) -> int | None:
        """The open cluster whose next candidate weighs most; of equals the one that was met first."""
        return max(
            self.open_clusters(), key=lambda place: (self.sizes[place] / (self.done(place) + 1), -place), default=None
        )

    def candidates(self) -> list[tuple[Sample, float]]:
        """Completed candidates with their votes, by probe; those without an answer have their share and no vote."""
        ended = [(probe.cluster, probe.end) for probe in self.probes if probe.end is not None]
        if self.rule.weight == "one":
            return [(sample, 1.0) for _, sample in ended]
        count = [sum(cluster == place for cluster, _ in ended) for place in range(len(self.sizes))]
        return [(sample, self.sizes[cluster] / count[cluster]) for cluster, sample in ended]

    def votes(self) -> dict[str, float]:
        votes: dict[str, float] = {}
        for sample, weight in self.candidates():
            if sample.answer is not None:
                votes[sample.answer] = votes.get(sample.answer, 0.0) + weight
        return votes

    @property
    def p_lead(self) -> float:
        """Posterior that the leader leads, over Kish's effective number of votes."""
        weights = [weight for _, weight in self.candidates()]
        scale = math.fsum(weights) / math.fsum(w * w for w in weights) if weights else 0.0
        first, second = _two_best(self.votes())
        return p_lead(first * scale, second * scale)

    def decided(self) -> bool:
        """True once nothing that may still be gone on with could change the leader."""
        pending = self.open_clusters()
        if not pending:
            return False
        if self.rule.weight == "one":
            swing = float(sum(self.rule.keep - self.done(place) for place in pending))
        else:
            # A cluster that has voted may take its votes away from the leader and give them to another.
            swing = float(sum(self.sizes[place] * (2 if self.done(place) else 1) for place in pending))
        first, second = _two_best(self.votes())
        return first - second > swing

    def bid(self, item: Item, session: Session, alike: Sequence[Sample], pull: float = 1.0) -> float:
        """The vote's bid for one more sample that costs what those ``alike`` did, relative to all that were drawn."""
        n = max(1, len(self.candidates()))
        tokens = session.expected_tokens()
        drawn = [*self.opened, *self.continued]
        if alike and (whole := _mean_billed(drawn)) > 0 and (mean := _mean_billed(alike)) > 0:
            tokens *= mean / whole
        return voting_value(self.p_lead, n, tokens, stakes=item.stakes * pull, alpha=self.rule.alpha)

    def solution(self, settled: bool) -> Solution:
        votes, facts = self.votes(), self.facts()
        value = self.refused_value if self.denied and not settled else 0.0
        if not votes:
            reason = StopReason.EXHAUSTED if self.denied else StopReason.HOPELESS
            return Solution(None, None, reason, 0.0, 0, next_value=value, facts=facts)
        leader = max(votes, key=lambda answer: votes[answer])
        backing = [sample for sample, _ in self.candidates() if sample.answer == leader]
        reason = StopReason.SETTLED if settled else StopReason.EXHAUSTED if self.denied else StopReason.CAPPED
        return Solution(leader, backing[0], reason, self.p_lead, len(backing), next_value=value, facts=facts)

    def facts(self) -> dict[str, Fact]:
        cut = sum(probe.open for probe in self.probes)
        facts: dict[str, Fact] = {
            "probes": float(len(self.opened)),
            "clusters": float(len(self.sizes)),
            "effective_clusters": effective_number(self.sizes),
            "effective_answers": effective_number(self.votes().values()),
            "continued": float(len(self.continued)),
            "cut": float(cut),
            "probe_tokens": float(sum(sample.billed_tokens for sample in self.opened)),
            "saved_tokens": cut * _mean_billed(self.continued),
        }
        if self.failed:
            facts["failed"] = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
        return facts


def _two_best(votes: dict[str, float]) -> tuple[float, float]:
    ordered = [*sorted(votes.values(), reverse=True), 0.0, 0.0]
    return ordered[0], ordered[1]


def _mean_billed(samples: Sequence[Sample]) -> float:
    return sum(sample.billed_tokens for sample in samples) / len(samples) if samples else 0.0
