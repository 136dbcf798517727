"""Log-probabilities reduced to the few numbers a vote can use, so that raw ones never leave the engine's process."""

from __future__ import annotations

from collections.abc import Sequence

# DeepConf's published group size is 2048 tokens for long traces (Fu et al. 2025, §3.1); a trace shorter than that is
# one group, which would make "lowest group" the plain mean. 32 keeps the measure local on short answers too.
GROUP = 32


def token_confidence(logprobs: Sequence[float]) -> float:
    """Negative mean log-probability (nats) of one position's top candidates (Fu et al. 2025, eq. 2)."""
    return -sum(logprobs) / len(logprobs)


def min_group_confidence(confidences: Sequence[float], group: int = GROUP) -> float | None:
    """Lowest mean of ``group`` consecutive token confidences; None for an empty trace (Fu et al. 2025, eq. 4, 6)."""
    if not confidences:
        return None
    width = min(group, len(confidences))
    window = sum(confidences[:width])
    lowest = window
    for new, old in zip(confidences[width:], confidences, strict=False):
        window += new - old
        lowest = min(lowest, window)
    return lowest / width
