"""What one worker asks of the market at a price, beyond what its wallet covers. Pure arithmetic on a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from budgets.messages import WorkerReport

_BUFFER_DIVISOR = 4
"""Slots that may free up before the next report, as a share of all slots: a wallet holds tokens for those as well."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Tokens (worst case) a worker lacks, by rank of the bid: guaranteed minimums, above the price, at the price.

    ``held``: tokens its wallet has free or will have once grants under way arrive. ``room``: how much more its wallet
    should hold at most: what its slots can start now, and a small buffer.
    """

    minimum: int
    above: int
    at_price: int
    held: int
    room: int


def needs_of(report: WorkerReport, under_way: int, price: float) -> Needs:
    """Split a worker's demand at ``price`` (a bucket's edge). ``under_way``: tokens granted and not acknowledged."""
    minimum = above = at_price = 0
    for bid, tokens in report.demand:
        if bid == math.inf:
            minimum += tokens
        elif bid > price:
            above += tokens
        elif bid == price:
            at_price += tokens
    held = left = report.free + under_way
    left -= (covered := min(left, minimum))
    minimum -= covered
    left -= (covered := min(left, above))
    above -= covered
    at_price -= min(left, at_price)
    slots = report.capacity + -(-(report.capacity + report.inflight) // _BUFFER_DIVISOR)
    return Needs(minimum, above, at_price, held, max(0, slots * report.worst - held))
