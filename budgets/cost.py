"""What a token costs, in whole units of the budget.

Promises: costs are linear in whole numbers, so the cost of many samples is the sum of theirs and a ledger rebuilt from
a journal agrees with the one that was lost to the unit. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from pipeline.records import Sample, Verdict

_NONE: Mapping[str, int] = MappingProxyType({})


class ByClass(NamedTuple):
    """A number for each class of token one model generates by: how many there are, or what one costs."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def plus(self, other: ByClass) -> ByClass:
        """Class by class."""
        return ByClass(*(one + another for one, another in zip(self, other, strict=True)))

    def at(self, rates: ByClass) -> int:
        """What these tokens cost."""
        return self.prompt * rates.prompt + self.cached * rates.cached + self.completion * rates.completion


_NO_MODELS: Mapping[str, ByClass] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by class: what a cost model prices. ``prompt`` are those computed, ``cached`` those that were not.

    These are the main model's; ``models``: tokens of further ones, by the model's name. ``verifier``: tokens by the
    verifier's name.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    verifier: Mapping[str, int] = field(default_factory=lambda: _NONE)
    models: Mapping[str, ByClass] = field(default_factory=lambda: _NO_MODELS)

    @property
    def billed(self) -> int:
        """Tokens the engines computed, whatever they cost: uncached prompt, completion and verification."""
        further = sum(tokens.prompt + tokens.completion for tokens in self.models.values())
        return self.prompt + self.completion + further + sum(self.verifier.values())

    def __add__(self, other: Usage) -> Usage:
        names = self.verifier.keys() | other.verifier.keys()
        models = self.models.keys() | other.models.keys()
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            {name: self.verifier.get(name, 0) + other.verifier.get(name, 0) for name in names},
            {name: self.models.get(name, ByClass()).plus(other.models.get(name, ByClass())) for name in models},
        )


@dataclass(frozen=True, slots=True)
class CostModel:
    """Units of the budget a token costs, by class of token; whole numbers >= 0, and ``completion`` >= 1.

    The default is the token budget of the design: completion tokens and uncached prompt tokens count one each, cached
    prompt tokens are free. ``verifier``: units a token of the verifier of that name; others cost ``completion``.
    ``models``: units a token of a further model of that name; others cost what the main model's do.
    """

    prompt: int = 1
    cached: int = 0
    completion: int = 1
    verifier: Mapping[str, int] = field(default_factory=lambda: _NONE)
    unit: str = "token"
    models: Mapping[str, ByClass] = field(default_factory=lambda: _NO_MODELS)

    # A read-only mapping does not travel between processes; a plain one does.
    def __reduce__(self) -> tuple[type[CostModel], tuple[int, int, int, dict[str, int], str, dict[str, ByClass]]]:
        plain = (self.prompt, self.cached, self.completion, dict(self.verifier), self.unit, dict(self.models))
        return CostModel, plain

    @property
    def uniform(self) -> bool:
        """True where a generated token costs the same whatever its class and model, and a cached one nothing."""
        main = ByClass(self.prompt, self.cached, self.completion)
        return self.prompt == self.completion and self.cached == 0 and all(one == main for one in self.models.values())

    def rates(self, model: str = "") -> ByClass:
        """Units a token of a model; empty: the main one."""
        main = ByClass(self.prompt, self.cached, self.completion)
        return self.models.get(model, main) if model else main

    def worst(self, prompt_tokens: int, max_tokens: int, model: str = "") -> int:
        """The most one sample can cost: nothing of the prompt is cached, or all of it where that is dearer."""
        rates = self.rates(model)
        return prompt_tokens * max(rates.prompt, rates.cached) + max_tokens * rates.completion

    def of(self, sample: Sample) -> int:
        """What a sample's generation cost."""
        cached = sample.cached_prompt_tokens
        return ByClass(sample.prompt_tokens - cached, cached, sample.completion_tokens).at(self.rates(sample.model))

    def of_verdict(self, verdict: Verdict) -> int:
        """What one verdict cost."""
        return verdict.tokens * self.verifier.get(verdict.verifier, self.completion)

    def of_all(self, samples: Iterable[Sample]) -> int:
        """Generation and verification of samples."""
        return sum(self.of(sample) + sum(self.of_verdict(v) for v in sample.verdicts) for sample in samples)

    def of_usage(self, usage: Usage) -> int:
        """What tokens counted by class cost: the same as the samples and verdicts they were counted from."""
        main = ByClass(usage.prompt, usage.cached, usage.completion).at(self.rates())
        further = sum(tokens.at(self.rates(name)) for name, tokens in usage.models.items())
        verifying = sum(tokens * self.verifier.get(name, self.completion) for name, tokens in usage.verifier.items())
        return main + further + verifying


TOKENS = CostModel()
"""The plain token budget."""
