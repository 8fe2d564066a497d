"""95 % intervals over items: Wilson's for a share, and a paired bootstrap for the change of a mean.

Items are drawn independently, so single items are resampled, unlike the neighbouring tokens of a
text (`surgery.analysis.score`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_Z = 1.959964  # of the normal distribution, at 97.5 %
_RESAMPLES = 2000
_SEED = 0


def wilson(right: int, count: int) -> tuple[float, float]:
    """The interval of a share of `count` independent items (Wilson 1927). It holds near 0 and 1,
    where the usual one of p ± 1.96 s has no width."""
    share, spread = right / count, _Z**2 / count
    middle = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Change:
    """The change of a mean, in nats or as a share, with its 95 % interval, paired over items.

    −∞ where the patient's values aren't all finite, NaN where the base's aren't.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, base: Sequence[float], patient: Sequence[float]) -> Change:
        """From `base` to `patient`, value by value. Raises `ValueError` if their numbers differ."""
        if len(base) != len(patient):
            raise ValueError("profiles of different items can't be compared")
        if not np.isfinite(base).all():
            return cls(math.nan, math.nan, math.nan)
        if not np.isfinite(patient).all():
            return cls(-math.inf, -math.inf, -math.inf)
        difference = np.subtract(patient, base)
        means = difference[_draws(len(difference))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return cls(float(difference.mean()), float(low), float(high))


@lru_cache(maxsize=8)
def _draws(count: int) -> np.ndarray:
    """The items of each resample: (resamples, items)."""
    return np.random.default_rng(_SEED).integers(0, count, (_RESAMPLES, count))
