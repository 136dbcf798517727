"""Log-probabilities reduced to the few numbers a vote can use, so that raw ones never leave the engine's process."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

# DeepConf's published group size is 2048 tokens for long traces (Fu et al. 2025, §3.1); a trace shorter than that is
# one group, which would make "lowest group" the plain mean. 32 keeps the measure local on short answers too.
GROUP = 32


def token_confidence(logprobs: Sequence[float]) -> float:
    """Negative mean log-probability (nats) of one position's top candidates (Fu et al. 2025, eq. 2)."""
    return -sum(logprobs) / len(logprobs)


class GroupConfidence:
    """Confidence of a trace while it grows: O(1) a token, memory of one group.

    A group is ``group`` consecutive tokens; its confidence is the mean of theirs (Fu et al. 2025, eq. 4, 6). One token
    whose confidence is not finite spoils the trace: ``lowest`` is NaN from there on, and nothing is ``below``.
    """

    __slots__ = ("_count", "_group", "_lowest", "_sum", "_window")

    def __init__(self, group: int = GROUP) -> None:
        self._group = group
        self._window: deque[float] = deque(maxlen=group)
        self._count = 0
        self._sum = 0.0
        self._lowest = math.inf

    def add(self, confidence: float) -> None:
        """The next token's confidence."""
        if len(self._window) == self._group:
            self._sum -= self._window[0]
        self._window.append(confidence)
        self._count += 1
        self._sum += confidence
        if not math.isfinite(self._sum):
            # A sum that was not finite once is never finite again.
            self._lowest = math.nan
        elif self._count <= self._group:
            # Until a group is whole, what there is stands for it.
            self._lowest = self._sum
        elif self._sum < self._lowest:
            self._lowest = self._sum

    @property
    def lowest(self) -> float | None:
        """Of all groups so far, the lowest; of fewer tokens than a group, their mean; None before the first token."""
        return self._lowest / len(self._window) if self._count else None

    def below(self, bar: float) -> bool:
        """Has a whole group fallen below ``bar``? Never, while there is none."""
        return self._count >= self._group and self._lowest / self._group < bar


def min_group_confidence(confidences: Sequence[float], group: int = GROUP) -> float | None:
    """Lowest mean of ``group`` consecutive token confidences; None for an empty trace, NaN for one that is spoilt."""
    trace = GroupConfidence(group)
    for confidence in confidences:
        trace.add(confidence)
    return trace.lowest
