"""Stopping rules: when has one question been asked often enough? Each cites its paper and keeps its defaults.

A rule is a frozen dataclass of primitives with ``should_stop(standing)``; it holds no state, so one object serves every
question. Rules read a ``Standing`` only, so they work alike on plain and on weighted votes. Call them after each
sample, in sample-index order; all say no before the first answer that parses, except ``FixedN``. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from budgets.votes import Standing, p_lead, p_mode
from pipeline.errors import SpecError

Form = Literal["beta", "dirichlet", "majority", "entropy"]

DEFAULT_THRESHOLDS: dict[str, float] = {"beta": 0.95, "dirichlet": 0.95, "majority": 0.8, "entropy": 0.75}
"""The authors' released defaults, by form."""
_DIRICHLET_TOP = 5
"""The authors keep the five most voted answers: the tail is too weak to win and makes the integral dear."""


class StoppingRule(Protocol):
    """What every rule offers."""

    def should_stop(self, standing: Standing) -> bool:
        """True when no further sample should be drawn."""
        ...


@dataclass(frozen=True, slots=True)
class FixedN:
    """Self-consistency with a fixed number of samples (Wang et al. 2023); the paper draws 40."""

    n: int = 40

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SpecError(f"fixed: n is {self.n!r}: it must be a whole number >= 1")

    def should_stop(self, standing: Standing) -> bool:
        """True from the n-th sample on, parsed or not."""
        return standing.n >= self.n


@dataclass(frozen=True, slots=True)
class AdaptiveConsistency:
    """Adaptive-Consistency (Aggarwal et al. 2023, "Let's Sample Step by Step", §3), in its four forms.

    ``threshold`` defaults to the authors' for the form (``DEFAULT_THRESHOLDS``). *beta*: stop once the leader beats
    the runner-up with this posterior probability; unanimous answers stop at 4 samples for .95, at 6 for .99.
    *dirichlet*: the same against all of the five most voted answers; below three answers it is *beta*. *majority*:
    the leader's share reaches it. *entropy*: entropy of the votes over its maximum falls to it (lower is stricter).
    The last two need two samples, since one is always unanimous.
    """

    form: Form = "beta"
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.form not in DEFAULT_THRESHOLDS:
            known = ", ".join(DEFAULT_THRESHOLDS)
            raise SpecError(f"adaptive_consistency: form is {self.form!r}: choose one of {known}")
        if self.threshold is None:
            object.__setattr__(self, "threshold", DEFAULT_THRESHOLDS[self.form])
        elif not 0.0 < self.threshold < 1.0:
            raise SpecError(f"adaptive_consistency: threshold is {self.threshold!r}: it must lie between 0 and 1")

    def should_stop(self, standing: Standing) -> bool:
        """True once the form's measure reaches the threshold."""
        threshold = cast(float, self.threshold)
        if standing.leader is None:
            return False
        if self.form == "beta" or (self.form == "dirichlet" and len(standing.counts) < 3):
            return p_lead(standing.lead_weight, standing.runner_up_weight) >= threshold
        if self.form == "dirichlet":
            return _leads_all(sorted(standing.counts.values(), reverse=True)[:_DIRICHLET_TOP], threshold)
        weight = math.fsum(standing.counts.values())
        if standing.valid < 2 or weight <= 0.0:
            return False
        shares = [share for count in standing.counts.values() if (share := count / weight) > 0.0]
        if self.form == "majority":
            return max(shares) >= threshold
        entropy = -math.fsum(share * math.log(share) for share in shares)
        return entropy <= threshold * math.log(max(2, len(shares)))


def _leads_all(top: list[float], threshold: float) -> bool:
    """``p_mode(top) >= threshold``, without the dear integral where its bounds already tell.

    Leading all is less likely than leading the runner-up, and fails no more often than the failures head to head add
    up to: the ratio of any two parts of a Dirichlet draw is the Beta draw of ``p_lead``.
    """
    failures = [1.0 - p_lead(top[0], rival) for rival in top[1:]]
    if failures[0] > 1.0 - threshold:
        return False
    return math.fsum(failures) <= 1.0 - threshold or p_mode(tuple(top)) >= threshold


@dataclass(frozen=True, slots=True)
class EarlyStoppingSelfConsistency:
    """Early-stopping self-consistency (Li et al. 2024, "Escape Sky-high Cost", §3): a whole window is unanimous.

    Windows are consecutive and do not overlap: samples 1–5, 6–10, and so on. A sample that did not parse breaks its
    window. The rule reads ``Standing.streak`` instead of keeping the answers: checked after each sample it is exact;
    checked late, it still sees the last whole window where the samples since agree with it. Weights do not matter.
    """

    window: int = 5

    def __post_init__(self) -> None:
        if self.window < 2:
            raise SpecError(f"esc: window is {self.window!r}: it must be a whole number >= 2")

    def should_stop(self, standing: Standing) -> bool:
        """True when the last whole window held one answer only."""
        return standing.n >= self.window and standing.streak >= self.window + standing.n % self.window


@dataclass(frozen=True, slots=True)
class PPR1v1:
    """PPR-1v1 certificate (Jain et al. 2022, "PAC Mode Estimation using PPR Martingale Confidence Sequences", §4).

    The leader is the mode with probability >= 1 − delta however often one looks. Each rival is tested head to head by
    the prior-posterior ratio at 1/2 under a uniform prior: rejected once the density of Beta(v1+1, v2+1) at 1/2 falls
    to delta / (K − 1). The number of answers K is not known beforehand; we take those seen, two at least. The rival
    with most votes is the hardest to reject. Unanimous answers stop at 8 samples for .05.
    """

    delta: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise SpecError(f"ppr: delta is {self.delta!r}: it must lie between 0 and 1")

    def should_stop(self, standing: Standing) -> bool:
        """True when every rival is rejected."""
        if standing.leader is None or standing.lead_weight <= standing.runner_up_weight:
            return False
        a, b = standing.lead_weight + 1.0, standing.runner_up_weight + 1.0
        log_density = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - (a + b - 2.0) * math.log(2.0)
        return log_density <= math.log(self.delta / max(1, len(standing.counts) - 1))


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"rule {name}:{text}: {text!r} is not a whole number; write {name}:5 for example") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"rule {name}:{text}: {text!r} is not a number; write {name}:0.95 for example") from None


def _adaptive(parts: list[str]) -> StoppingRule:
    form = "beta"
    if parts and parts[0] in DEFAULT_THRESHOLDS:
        form, parts = parts[0], parts[1:]
    if len(parts) > 1:
        raise SpecError(f"rule adaptive_consistency: {parts!r} is too much; write adaptive_consistency:beta:0.95")
    threshold = _number("adaptive_consistency", parts[0]) if parts else None
    return AdaptiveConsistency(cast(Form, form), threshold)


_ONE_NUMBER: dict[str, tuple[Callable[[], StoppingRule], Callable[[str], StoppingRule]]] = {
    "fixed": (FixedN, lambda text: FixedN(_whole("fixed", text))),
    "esc": (EarlyStoppingSelfConsistency, lambda text: EarlyStoppingSelfConsistency(_whole("esc", text))),
    "ppr": (PPR1v1, lambda text: PPR1v1(_number("ppr", text))),
}


def make_rule(text: str) -> StoppingRule:
    """Parse ``fixed[:N]``, ``adaptive_consistency[:form][:threshold]``, ``esc[:window]`` or ``ppr[:delta]``.

    Raises:
        SpecError: the rule is unknown, or its number is missing, malformed or out of range.
    """
    name, *parts = (part.strip() for part in text.split(":"))
    if name == "adaptive_consistency":
        return _adaptive(parts)
    if name not in _ONE_NUMBER:
        raise SpecError(f"rule {text!r} is unknown; choose one of adaptive_consistency, {', '.join(_ONE_NUMBER)}")
    if len(parts) > 1:
        raise SpecError(f"rule {text!r} takes one number; write {name}:{parts[0]}")
    default, parsed = _ONE_NUMBER[name]
    return parsed(parts[0]) if parts else default()


FLAT_AFTER = 8
"""Fewer samples say little about how a vote splits: before this many no question is called hopeless."""


def is_hopeless(standing: Standing, threshold: float, cap: int) -> bool:
    """True where the vote, going on as it went, would not be certain at ``cap`` samples either.

    A forecast, not a bound: the leader and the runner-up are given their present shares of the samples still allowed,
    and the Beta posterior of the forecast counts is held against ``threshold``. Never true before ``FLAT_AFTER``.
    """
    if standing.n < FLAT_AFTER:
        return False
    growth = cap / standing.n
    return p_lead(round(standing.lead_weight * growth), round(standing.runner_up_weight * growth)) < threshold
