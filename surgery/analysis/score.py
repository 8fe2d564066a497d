"""Perplexity and what its sample allows to say: per-token losses, and an interval from them.

Knows numbers only, no models. Neighbouring tokens are no independent draws, so the interval comes
from resampling blocks of consecutive tokens (block bootstrap: Künsch, Annals of Statistics 17,
1989; in a circle, so that every token counts alike: Politis and Romano, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
BLOCK = 16  # tokens: about a sentence, well beyond the distance at which losses still correlate
_SEED = 0


@dataclass(frozen=True)
class Score:
    """Perplexity = exp(mean loss), with a 95 % interval.

    `nll` has the loss −ln p of every scored token, in nats; `tokens` is how many they are. A model
    that is broken (NaN or infinite losses) has a perplexity of infinity.
    """

    perplexity: float
    low: float
    high: float
    tokens: int
    nll: tuple[float, ...]

    @classmethod
    def of(cls, nll: Sequence[float]) -> Score:
        """The score of a series of losses, in reading order."""
        values = np.asarray(nll, np.float64)
        low, high = interval(values)
        return cls(
            _exp(float(values.mean())), _exp(low), _exp(high), len(values), tuple(values.tolist())
        )

    @property
    def mean(self) -> float:
        """The mean loss in nats per token."""
        return float(np.mean(self.nll))


@dataclass(frozen=True)
class Cost:
    """How much a model loses against another on the same tokens: mean difference of the losses in
    nats per token, with a 95 % interval. Being paired, it is far narrower than both scores'."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, score: Score, base: Score) -> Cost:
        """What `score` loses against `base`. Raises `ValueError` if the tokens differ."""
        if score.tokens != base.tokens:
            raise ValueError("scores of different samples can't be compared")
        if not math.isfinite(score.perplexity):
            return cls(math.inf, math.inf, math.inf)
        if not math.isfinite(base.perplexity):
            return cls(-math.inf, -math.inf, -math.inf)
        difference = np.subtract(score.nll, base.nll)
        return cls(float(difference.mean()), *interval(difference))


def interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the mean, from `RESAMPLES` circular block resamples.

    The same draws for every series of the same length, so that intervals can be compared and a
    second look gives the same numbers. Not-a-numbers give infinity.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        return math.inf, math.inf
    means = block_means(values)[_draws(len(values))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def block_means(values: np.ndarray) -> np.ndarray:
    """The mean of the block that begins at each value, going round at the end."""
    size = min(BLOCK, len(values))
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[: size - 1]]))])
    return (sums[size:] - sums[:-size]) / size


@lru_cache(maxsize=8)
def _draws(length: int) -> np.ndarray:
    """Where the blocks of each resample begin: (resamples, blocks)."""
    blocks = math.ceil(length / min(BLOCK, length))
    return np.random.default_rng(_SEED).integers(0, length, (RESAMPLES, blocks))


def _exp(mean: float) -> float:
    try:
        return math.exp(mean) if math.isfinite(mean) else math.inf
    except OverflowError:
        return math.inf
