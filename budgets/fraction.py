"""The continued fraction behind the regularised incomplete beta function. Pure."""

from __future__ import annotations

_TINY = 1e-300


def beta_fraction(x: float, a: float, b: float, epsilon: float, most_terms: int) -> float:
    """The continued fraction of I_x(a, b) by the modified Lentz method (DLMF 8.17.22, Thompson 1986).

    Converges fast where x < (a + 1) / (a + b + 2); ends once a step changes it by less than ``epsilon``, relative.
    """
    c = 1.0
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, most_terms):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        fraction *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        step = d * c
        fraction *= step
        if abs(step - 1.0) < epsilon:
            break
    return fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
