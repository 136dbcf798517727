"""What a token costs, in whole units of the budget.

Promises: costs are linear in whole numbers, so the cost of many samples is the sum of theirs and a ledger rebuilt from
a journal agrees with the one that was lost to the unit. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pipeline.records import Sample, Verdict


@dataclass(frozen=True, slots=True)
class CostModel:
    """Units of the budget a token costs, by class of token.

    The default is the token budget of the design: completion tokens and uncached prompt tokens count one each, cached
    prompt tokens are free. ``verifier``: units a token of the verifier of that name; others cost ``completion``.
    """

    prompt: int = 1
    cached: int = 0
    completion: int = 1
    verifier: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    unit: str = "token"

    def worst(self, prompt_tokens: int, max_tokens: int) -> int:
        """The most one sample can cost: nothing of the prompt is cached, or all of it where that is dearer."""
        return prompt_tokens * max(self.prompt, self.cached) + max_tokens * self.completion

    def of(self, sample: Sample) -> int:
        """What a sample's generation cost."""
        uncached = sample.prompt_tokens - sample.cached_prompt_tokens
        return (
            uncached * self.prompt
            + sample.cached_prompt_tokens * self.cached
            + sample.completion_tokens * self.completion
        )

    def of_verdict(self, verdict: Verdict) -> int:
        """What one verdict cost."""
        return verdict.tokens * self.verifier.get(verdict.verifier, self.completion)

    def of_all(self, samples: Iterable[Sample]) -> int:
        """Generation and verification of samples."""
        return sum(self.of(sample) + sum(self.of_verdict(v) for v in sample.verdicts) for sample in samples)


TOKENS = CostModel()
"""The plain token budget."""
