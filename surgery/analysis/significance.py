"""Whether a difference between two models is more than chance, after many were compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from .score import BLOCK, resampled_means

LEVEL = 0.05
_STRETCHES = 24  # of a text: few enough to be long, so that they don't depend on each other
_FEWEST = 10  # with fewer, p can't become small
_DRAWS = 20_000
_POWER = 1.96 + 0.84  # standard errors: found 80 % of the time at a level of 5 %


def p_value(differences: Sequence[float] | np.ndarray) -> float | None:
    """The probability of a mean at least this far from zero if the true one is zero, two-sided.

    `differences` are those of two models' losses by token, in reading order. Neighbours depend on
    each other, so the text is cut into stretches, and if there is no difference, each stretch's sum
    could as well have had the other sign (approximate randomisation: Noreen, Computer-Intensive
    Methods for Testing Hypotheses, 1989). A test by resampling would find too much where small
    values of p matter. 1 if the models are equal; None if the text is too short to tell, or a
    difference isn't finite.
    """
    values = np.asarray(differences, np.float64)
    stretches = min(_STRETCHES, len(values) // BLOCK)
    if stretches < _FEWEST or not np.isfinite(values).all():
        return None
    if not values.any():
        return 1.0
    sums = np.array([part.sum() for part in np.array_split(values, stretches)])
    reached = np.abs(_signs(stretches) @ sums) >= abs(sums.sum()) * (1 - 1e-9)
    return float((1 + reached.sum()) / (1 + len(reached)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, so that at most a share α of those below α is false on
    average (Benjamini and Hochberg, J. R. Statist. Soc. B 57, 1995)."""
    n = len(p_values)
    result, least = [1.0] * n, 1.0
    for rank, i in enumerate(sorted(range(n), key=lambda i: -p_values[i])):
        least = min(least, p_values[i] * n / (n - rank))
        result[i] = least
    return result


def tokens_needed(differences: Sequence[float] | np.ndarray, effect: float) -> int | None:
    """How many tokens of such text it takes to tell a mean difference of `effect` nats from zero,
    four times out of five at a level of 5 %. None if that can't be estimated: the models are equal,
    or a difference isn't finite."""
    values = np.asarray(differences, np.float64)
    if not np.isfinite(values).all() or not values.any():
        return None
    error = float(resampled_means(values).std())
    return math.ceil(len(values) * (_POWER * error / effect) ** 2)


@cache
def _signs(count: int) -> np.ndarray:
    """Random signs: (draws, count)."""
    return np.random.default_rng(0).choice(np.array([-1.0, 1.0]), (_DRAWS, count))
