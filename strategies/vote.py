"""A vote whose votes a verifier may judge: counted anew whenever a verdict changes what counts.

Keeps samples in sample-index order and what was said of them. Draws nothing and asks nobody.
"""

from __future__ import annotations

import math
from typing import Literal

from budgets.evidence import Evidence, WeightedTally
from pipeline.records import Sample, Verdict

Judging = Literal["pass", "weigh"]


class Vote:
    """The vote of one question.

    ``judging`` None: nobody judges. *pass*: a sample that failed (score 0) does not vote, any other votes in full.
    *weigh*: a vote is multiplied by its score (Li et al. 2023, "Making Language Models Better Reasoners with Step-Aware
    Verifier", §3.3: voting weighted by a verifier's scores). A sample nobody could judge votes in full either way.
    """

    def __init__(self, evidence: Evidence, judging: Judging | None, pass_score: float) -> None:
        self._evidence, self._judging, self._pass_score = evidence, judging, pass_score
        self._samples: list[Sample] = []
        self._said: list[Verdict | None] = []
        self.tally: WeightedTally = evidence.tally()
        self.passed: Sample | None = None
        """The first sample that passed."""

    @property
    def n(self) -> int:
        """Samples drawn, whatever became of them."""
        return len(self._samples)

    @property
    def failed(self) -> bool:
        """Was there an answer, and did none that was judged stand?"""
        return self.tally.leader is None and any(map(_votes, self._samples))

    def add(self, sample: Sample) -> None:
        """One more sample, not judged yet."""
        self._samples.append(sample)
        self._said.append(None)
        self.tally.add_sample(sample)

    def unjudged(self, answer: str | None = None) -> list[Sample]:
        """Samples that vote and that nobody was asked about; of ``answer`` alone, where it is given."""
        return [
            sample
            for sample, said in zip(self._samples, self._said, strict=True)
            if said is None and _votes(sample) and (answer is None or sample.answer == answer)
        ]

    def judged(self) -> list[Sample]:
        """Samples somebody was asked about."""
        return [sample for sample, said in zip(self._samples, self._said, strict=True) if said is not None]

    def judge(self, samples: list[Sample], verdicts: list[Verdict]) -> None:
        """Take verdicts on some samples, and count again."""
        said = {(sample.prompt_key, sample.sample_index): one for sample, one in zip(samples, verdicts, strict=True)}
        self._said = [
            said.get((sample.prompt_key, sample.sample_index), known)
            for sample, known in zip(self._samples, self._said, strict=True)
        ]
        self.tally = self._evidence.tally()
        for sample, verdict in zip(self._samples, self._said, strict=True):
            score = _score(verdict)
            if score is not None and score >= self._pass_score and self.passed is None:
                self.passed = sample
            self._count(sample, score)

    def votes(self, answer: str) -> int:
        """Samples that gave ``answer`` and count."""
        return sum(
            sample.answer == answer and _votes(sample) and _score(verdict) != 0.0
            for sample, verdict in zip(self._samples, self._said, strict=True)
        )

    def best(self, answer: str) -> Sample:
        """The sample that stands for an answer: the best judged, the first of these."""
        own = [
            (sample, _score(verdict))
            for sample, verdict in zip(self._samples, self._said, strict=True)
            if sample.answer == answer and _votes(sample)
        ]
        # A sample nobody judged stands above one that failed, below one that scored.
        return max(own, key=lambda pair: -0.5 if pair[1] is None else pair[1] or -1.0)[0]

    def _count(self, sample: Sample, score: float | None) -> None:
        if score == 0.0:
            self.tally.add(None)
        elif score is not None and self._judging == "weigh":
            self.tally.add_sample(sample, worth=score)
        else:
            self.tally.add_sample(sample)


def _votes(sample: Sample) -> bool:
    return sample.answer is not None and not sample.aborted


def _score(verdict: Verdict | None) -> float | None:
    if verdict is None or verdict.score is None or not math.isfinite(verdict.score):
        return None
    return verdict.score
