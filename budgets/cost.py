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


class Tokens(NamedTuple):
    """Tokens of generation by class. ``prompt`` are those computed, ``cached`` those that were not."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


class Rates(NamedTuple):
    """Units of the budget a token costs, by class; whole numbers >= 0, and ``completion`` >= 1."""

    prompt: int = 1
    cached: int = 0
    completion: int = 1

    def of(self, tokens: Tokens) -> int:
        """What so many tokens cost."""
        return tokens.prompt * self.prompt + tokens.cached * self.cached + tokens.completion * self.completion

    def worst(self, prompt_tokens: int, max_tokens: int) -> int:
        """The most one sample can cost: nothing of the prompt is cached, or all of it where that is dearer."""
        return prompt_tokens * max(self.prompt, self.cached) + max_tokens * self.completion


_NO_TOKENS: Mapping[str, Tokens] = MappingProxyType({})
_NO_RATES: Mapping[str, Rates] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by class: what a cost model prices. ``prompt`` are those computed, ``cached`` those that were not.

    ``verifier``: tokens by the verifier's name. The first three are the job's ``model``'s; ``models`` those of its
    further models, by name.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    verifier: Mapping[str, int] = field(default_factory=lambda: _NONE)
    models: Mapping[str, Tokens] = field(default_factory=lambda: _NO_TOKENS)

    @property
    def billed(self) -> int:
        """Tokens the engines computed, whatever they cost: uncached prompt, completion and verification."""
        further = sum(tokens.prompt + tokens.completion for tokens in self.models.values())
        return self.prompt + self.completion + further + sum(self.verifier.values())

    @property
    def generation(self) -> Usage:
        """The same without verification."""
        return Usage(self.prompt, self.cached, self.completion, models=self.models)

    def __add__(self, other: Usage) -> Usage:
        names = self.verifier.keys() | other.verifier.keys()
        models = self.models.keys() | other.models.keys()
        pairs = {name: (self.models.get(name, Tokens()), other.models.get(name, Tokens())) for name in models}
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            {name: self.verifier.get(name, 0) + other.verifier.get(name, 0) for name in names},
            {name: Tokens(*map(sum, zip(*pair, strict=True))) for name, pair in pairs.items()},
        )


@dataclass(frozen=True, slots=True)
class CostModel:
    """Units of the budget a token costs, by class of token; whole numbers >= 0, and ``completion`` >= 1.

    The default is the token budget of the design: completion tokens and uncached prompt tokens count one each, cached
    prompt tokens are free. ``verifier``: units a token of the verifier of that name; others cost ``completion``.
    ``models``: rates of further models by name; others cost what the job's ``model`` costs.
    """

    prompt: int = 1
    cached: int = 0
    completion: int = 1
    verifier: Mapping[str, int] = field(default_factory=lambda: _NONE)
    unit: str = "token"
    models: Mapping[str, Rates] = field(default_factory=lambda: _NO_RATES)

    # A read-only mapping does not travel between processes; a plain one does.
    def __reduce__(self) -> tuple[type[CostModel], tuple[object, ...]]:
        models = dict(self.models)
        return CostModel, (self.prompt, self.cached, self.completion, dict(self.verifier), self.unit, models)

    @property
    def uniform(self) -> bool:
        """True where a token of the job's ``model`` costs the same whatever its class, and a cached one nothing."""
        return self.prompt == self.completion and self.cached == 0

    @property
    def alike(self) -> bool:
        """``uniform``, and no model is priced otherwise."""
        return self.uniform and all(rates == self.rates() for rates in self.models.values())

    def rates(self, model: str = "") -> Rates:
        """Rates of a further model, or of the job's ``model``."""
        return self.models.get(model) or Rates(self.prompt, self.cached, self.completion)

    def worst(self, prompt_tokens: int, max_tokens: int, model: str = "") -> int:
        """The most one sample can cost."""
        return self.rates(model).worst(prompt_tokens, max_tokens)

    def of(self, sample: Sample) -> int:
        """What a sample's generation cost."""
        uncached = sample.prompt_tokens - sample.cached_prompt_tokens
        tokens = Tokens(uncached, sample.cached_prompt_tokens, sample.completion_tokens)
        return self.rates(sample.model).of(tokens)

    def of_verdict(self, verdict: Verdict) -> int:
        """What one verdict cost."""
        return verdict.tokens * self.verifier.get(verdict.verifier, self.completion)

    def of_all(self, samples: Iterable[Sample]) -> int:
        """Generation and verification of samples."""
        return sum(self.of(sample) + sum(self.of_verdict(v) for v in sample.verdicts) for sample in samples)

    def of_usage(self, usage: Usage) -> int:
        """What tokens counted by class cost: the same as the samples and verdicts they were counted from."""
        verifying = sum(tokens * self.verifier.get(name, self.completion) for name, tokens in usage.verifier.items())
        further = sum(self.rates(name).of(tokens) for name, tokens in usage.models.items())
        return self.rates().of(Tokens(usage.prompt, usage.cached, usage.completion)) + further + verifying


TOKENS = CostModel()
"""The plain token budget."""
