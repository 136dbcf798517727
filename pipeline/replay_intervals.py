"""Means over questions with 95% intervals from resampling questions (Efron 1979, percentile bootstrap). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LARGE = 5000
"""From this many questions on the bootstrap's limit is used, mean ± 1.96 standard errors: they agree to a few percent
of the interval's width there, and resampling a million questions a thousand times would take longer than the replay."""
_Z95 = 1.959963984540054
_CHUNK = 1 << 20

Interval = tuple[float, float]


class Mean(NamedTuple):
    """A mean over so many ``questions``; ``mean`` and ``interval`` are NaN where there are none."""

    mean: float
    interval: Interval
    questions: int


Means = dict[str, Mean]


def means_of(values: Mapping[str, NDArray[np.float64]], seed: int) -> Means:
    """The mean of every column over the questions where it is no NaN. The same seed gives the same intervals."""
    return {name: _mean(column[~np.isnan(column)], seed) for name, column in values.items()}


def _mean(column: NDArray[np.float64], seed: int) -> Mean:
    count = len(column)
    if not count:
        return Mean(float("nan"), (float("nan"), float("nan")), 0)
    mean = float(column.mean())
    if count >= LARGE:
        reach = _Z95 * float(column.std()) / count**0.5
        return Mean(mean, (mean - reach, mean + reach), count)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // count)
    found = [
        column[rng.integers(0, count, (min(step, RESAMPLES - done), count))].mean(axis=1)
        for done in range(0, RESAMPLES, step)
    ]
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Mean(mean, (float(low), float(high)), count)
