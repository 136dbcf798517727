"""Demand curves: how many tokens are wanted at which value, in a few dozen numbers whatever the number of questions.

Promises: buckets are geometric, eight to the octave, with exact edges, so a price that is a bucket's edge splits bids
exactly as ``bid >= price`` does; sums are whole tokens, so adding and taking away again leaves nothing behind. Bids of
0 and of +inf (a question's guaranteed minimum) have buckets of their own. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable

from pipeline.errors import SpecError

Pairs = tuple[tuple[float, int], ...]
"""A curve in a message: (lower edge of the bucket, tokens), highest bid first."""

BUCKETS_PER_OCTAVE = 8
"""Neighbouring buckets differ by 9%: finer than bids are known, and a curve stays a few dozen numbers."""
LOWEST = 2.0**-990
HIGHEST = 2.0**990
"""Below the one a bid counts as 0, above the other as this: so that edges stay exact at the ends of float range."""
_EDGES = [0.5 * 2.0 ** (k / BUCKETS_PER_OCTAVE) for k in range(BUCKETS_PER_OCTAVE)]
_ZERO = -1_000_000
_INF = 1_000_000


def bucket_of(bid: float) -> int:
    """The bucket of a bid >= 0. Raises SpecError for a negative bid or NaN."""
    if not bid >= 0.0:
        raise SpecError(f"bid is {bid!r}: it must be a number >= 0; mend the stakes or the value rule it comes from")
    if bid == math.inf:
        return _INF
    if bid < LOWEST:
        return _ZERO
    mantissa, exponent = math.frexp(min(bid, HIGHEST))
    return exponent * BUCKETS_PER_OCTAVE + bisect_right(_EDGES, mantissa) - 1


def edge_of(bucket: int) -> float:
    """The lowest bid a bucket holds: ``bucket_of(edge_of(b)) == b``."""
    if bucket == _INF:
        return math.inf
    if bucket == _ZERO:
        return 0.0
    return math.ldexp(_EDGES[bucket % BUCKETS_PER_OCTAVE], bucket // BUCKETS_PER_OCTAVE)


def just_above(bid: float) -> float:
    """The lowest price that leaves out the whole bucket of ``bid``."""
    bucket = bucket_of(bid)
    if bucket == _ZERO:
        return LOWEST
    return edge_of(bucket + 1) if bucket < bucket_of(HIGHEST) else math.inf


class DemandCurve:
    """Tokens wanted by bucket of bid. What the tokens mean (worst case or expected) is the owner's choice."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens: dict[int, int] = {}

    def add(self, bid: float, tokens: int) -> None:
        """Count ``tokens`` wanted at ``bid`` (value per token); negative tokens take away what was added."""
        bucket = bucket_of(bid)
        total = self._tokens.get(bucket, 0) + tokens
        if total:
            self._tokens[bucket] = total
        else:
            self._tokens.pop(bucket, None)

    def merge(self, other: DemandCurve, sign: int = 1) -> None:
        """Add another curve to this one; ``sign`` -1 takes it away."""
        mine = self._tokens
        for bucket, tokens in other._tokens.items():
            total = mine.get(bucket, 0) + sign * tokens
            if total:
                mine[bucket] = total
            else:
                mine.pop(bucket, None)

    def copy(self) -> DemandCurve:
        """An equal curve that changes by itself."""
        twin = DemandCurve()
        twin._tokens = self._tokens.copy()
        return twin

    def add_pairs(self, pairs: Iterable[tuple[float, int]], sign: int = 1) -> None:
        """Add a curve as it stood in a message; ``sign`` -1 takes it away."""
        for bid, tokens in pairs:
            self.add(bid, sign * tokens)

    def total(self) -> int:
        """Tokens wanted at any price."""
        return sum(self._tokens.values())

    def at_or_above(self, price: float) -> int:
        """Tokens wanted by the buckets from that of ``price`` upwards."""
        floor = bucket_of(price)
        return sum(tokens for bucket, tokens in self._tokens.items() if bucket >= floor)

    def price_for(self, tokens: int) -> float:
        """The lowest price at which demand fits into ``tokens``: 0.0 where all fits, inf where no finite bid does."""
        wanted = 0
        for bucket in sorted(self._tokens, reverse=True):
            wanted += self._tokens[bucket]
            if wanted > tokens:
                return just_above(edge_of(bucket))
        return 0.0

    def marginal(self, tokens: int) -> float:
        """The bid at which ``tokens``, filled from the top, run out: demand above it fits, its own only in part."""
        wanted = 0
        for bucket in sorted(self._tokens, reverse=True):
            wanted += self._tokens[bucket]
            if wanted > tokens:
                return edge_of(bucket)
        return 0.0

    def edges(self) -> list[float]:
        """Lower edges of the non-empty buckets, lowest first."""
        return [edge_of(bucket) for bucket in sorted(self._tokens)]

    def to_pairs(self) -> Pairs:
        """The curve for a message."""
        return tuple((edge_of(bucket), self._tokens[bucket]) for bucket in sorted(self._tokens, reverse=True))

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[float, int]]) -> DemandCurve:
        """The inverse of ``to_pairs``."""
        curve = cls()
        curve.add_pairs(pairs)
        return curve
