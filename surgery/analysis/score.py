"""Perplexity, and its uncertainty: intervals by resampling the losses of tokens.

Neighbouring tokens aren't independent, so blocks of consecutive tokens are resampled (circular
block bootstrap: Künsch, Annals of Statistics 17, 1989; Politis and Romano, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
BLOCK = 16  # tokens: about a sentence, well beyond the distance over which losses correlate
_SEED = 0
_KEPT = 1 << 21  # draws in memory at once, and kept for other series of their length: 16 MB


@dataclass(frozen=True)
class Score:
    """Perplexity = exp(mean loss), with a 95 % interval.

    `nll` has the loss −ln p of every scored token, in nats, and `tokens` is their number. A broken
    model (NaN or infinite losses) has infinite perplexity.
    """

    perplexity: float
    low: float
    high: float
    tokens: int
    nll: tuple[float, ...]

    @classmethod
    def of(cls, nll: Sequence[float] | np.ndarray) -> Score:
        """The perplexity of losses in reading order."""
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
class LossIncrease:
    """The increase of the mean loss over another model's on the same tokens, in nats per token,
    with a 95 % interval. It is paired, and so far narrower than either perplexity's interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, score: Score, base: Score) -> LossIncrease:
        """The increase from `base` to `score`. Raises `ValueError` if tokens differ."""
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

    All series of one length use the same draws, so that intervals can be compared and repeated.
    Values that aren't finite give infinity.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        return math.inf, math.inf
    low, high = np.quantile(resampled_means(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_means(values: np.ndarray) -> np.ndarray:
    """The mean of each of `RESAMPLES` circular block resamples: (resamples,)."""
    means, length = block_means(values), len(values)
    if RESAMPLES * _blocks(length) <= _KEPT:
        return means[_draws(length)].mean(axis=1)
    return np.concatenate([means[starts].mean(axis=1) for starts in _drawn(length)])


def block_means(values: np.ndarray) -> np.ndarray:
    """The mean of the block that starts at each value, wrapping round at the end."""
    size = min(BLOCK, len(values))
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[: size - 1]]))])
    return (sums[size:] - sums[:-size]) / size


@lru_cache(maxsize=8)
def _draws(length: int) -> np.ndarray:
    """The start of every block of each resample: (resamples, blocks)."""
    return np.concatenate(list(_drawn(length)))


def _drawn(length: int) -> Iterator[np.ndarray]:
    """The same, some resamples at a time."""
    blocks, random = _blocks(length), np.random.default_rng(_SEED)
    rows = max(1, _KEPT // blocks)
    for first in range(0, RESAMPLES, rows):
        yield random.integers(0, length, (min(rows, RESAMPLES - first), blocks))


def _blocks(length: int) -> int:
    """How many blocks make a resample of so many values."""
    return math.ceil(length / min(BLOCK, length))


def _exp(mean: float) -> float:
    try:
        return math.exp(mean) if math.isfinite(mean) else math.inf
    except OverflowError:
        return math.inf
