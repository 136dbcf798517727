"""What a token costs, in whole units of the budget.

Promises: costs are linear in whole numbers, so the cost of many samples is the sum of theirs and a ledger rebuilt from
a journal agrees with the one that was lost to the unit. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pipeline.records import Sample, Verdict

_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by class: what a cost model prices. ``prompt`` are those computed, ``cached`` those that were not.

    ``verifier``: tokens by the verifier's name.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    verifier: Mapping[str, int] = field(default_factory=lambda: _NONE)

    @property
    def billed(self) -> int:
        """Tokens the engines computed, whatever they cost: uncached prompt, completion and verification."""
        return self.prompt + self.completion + sum(self.verifier.values())

    def __add__(self, other: Usage) -> Usage:
        names = self.verifier.keys() | other.verifier.keys()
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            {name: self.verifier.get(name, 0) + other.verifier.get(name, 0) for name in names},
        )


@dataclass(frozen=True, slots=True)
class CostModel:
    """Units of the budget a token costs, by class of token; whole numbers >= 0, and ``completion`` >= 1.

    The default is the token budget of the design: completion tokens and uncached prompt tokens count one each, cached
    prompt tokens are free. ``verifier``: units a token of the verifier of that name; others cost ``completion``.
    """

    prompt: int = 1
    cached: int = 0
    completion: int = 1
    verifier: Mapping[str, int] = field(default_factory=lambda: _NONE)
    unit: str = "token"

    # A read-only mapping does not travel between processes; a plain one does.
    def __reduce__(self) -> tuple[type[CostModel], tuple[int, int, int, dict[str, int], str]]:
        return CostModel, (self.prompt, self.cached, self.completion, dict(self.verifier), self.unit)

    @property
    def uniform(self) -> bool:
        """True where a generated token costs the same whatever its class, and a cached one nothing."""
        return self.prompt == self.completion and self.cached == 0

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

    def of_usage(self, usage: Usage) -> int:
        """What tokens counted by class cost: the same as the samples and verdicts they were counted from."""
        verifying = sum(tokens * self.verifier.get(name, self.completion) for name, tokens in usage.verifier.items())
        return usage.prompt * self.prompt + usage.cached * self.cached + usage.completion * self.completion + verifying


TOKENS = CostModel()
"""The plain token budget."""
