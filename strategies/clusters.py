"""Which texts say the same: greedy leader clustering over unit vectors, and how many different ones there are.

Pure. The order of addition decides (Hartigan 1975, *Clustering Algorithms*, ch. 3, the leader algorithm): a vector
joins the nearest leader at ``similarity`` or nearer, else it leads a cluster of its own. One pass, no number of
clusters to choose, and what was decided never changes when more vectors come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Vector = Sequence[float]


@dataclass
class Leaders:
    """Clusters so far, each named by its place. ``similarity``: the cosine from which two texts count as one."""

    similarity: float
    leaders: list[Vector] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, vector: Vector) -> int:
        """The cluster of one more unit vector. A vector with a NaN is like nothing and leads its own."""
        best, nearest = None, -math.inf
        for place, leader in enumerate(self.leaders):
            cosine = math.fsum(a * b for a, b in zip(leader, vector, strict=True))
            if cosine >= self.similarity and cosine > nearest:
                best, nearest = place, cosine
        if best is None:
            self.leaders.append(vector)
            self.sizes.append(1)
            return len(self.sizes) - 1
        self.sizes[best] += 1
        return best


def effective_number(weights: Iterable[float]) -> float:
    """exp of the Shannon entropy of the shares: k equal weights count as k; 0 where there are none."""
    present = [weight for weight in weights if weight > 0.0]
    whole = math.fsum(present)
    return math.exp(-math.fsum(w / whole * math.log(w / whole) for w in present)) if present else 0.0
