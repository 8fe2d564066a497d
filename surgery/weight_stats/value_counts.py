"""Statistics of a set of weights, from how often each value occurs.

Moments and shares are those of the finite values. NaN and infinities are counted apart: one of
them doesn't make every number NaN, and none is overlooked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Facts:
    """Summary statistics; None where there are no finite values.

    `deviation` is the population standard deviation and `kurtosis` the excess kurtosis. `beyond_2`
    and `beyond_4` are the shares of values more than 2 and 4 deviations from the mean.
    """

    values: int
    mean: float | None
    deviation: float | None
    kurtosis: float | None
    norm: float
    minimum: float | None
    median: float | None
    maximum: float | None
    zeros: int
    beyond_2: float | None
    beyond_4: float | None
    nan: int
    infinite: int

    def as_dict(self) -> dict:
        """For JSON and CSV."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ValueCounts:
    """How often each value occurs: `values` (float32) are distinct, finite and ascending, and
    `counts[i]` is the number of weights equal to `values[i]`.

    `rounded` is True where the weights are of a type wider than 16 bits and were counted at the
    nearest bfloat16: every value is then right to one part in 256.
    """

    values: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    nan: int = 0
    above: int = 0  # +inf
    below: int = 0  # -inf
    rounded: bool = False

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray, rounded: bool = False) -> ValueCounts:
        """From values in any order, which may include NaN, infinities and both zeros."""
        values, counts = np.asarray(values, np.float32), np.asarray(counts, np.int64)
        present = np.flatnonzero(counts)
        values, counts = values[present], counts[present]
        finite = np.isfinite(values)
        distinct, summed = _gather(values[finite], counts[finite])
        return cls(
            distinct,
            summed,
            int(counts[np.isnan(values)].sum()),
            int(counts[values == np.inf].sum()),
            int(counts[values == -np.inf].sum()),
            rounded,
        )

    @classmethod
    def merged(cls, parts: Iterable[ValueCounts]) -> ValueCounts:
        """The counts of all parts together."""
        parts = list(parts)
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls()
        values, counts = _gather(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.counts for part in parts]),
        )
        return cls(
            values,
            counts,
            sum(part.nan for part in parts),
            sum(part.above for part in parts),
            sum(part.below for part in parts),
            any(part.rounded for part in parts),
        )

    # ------------------------------------------------------------------ sizes

    @cached_property
    def finite(self) -> int:
        """The number of finite values."""
        return int(self.counts.sum())

    @property
    def size(self) -> int:
        """The number of values, including NaN and infinities."""
        return self.finite + self.nan + self.above + self.below

    @property
    def zeros(self) -> int:
        """The number of zeros of either sign."""
        at = int(np.searchsorted(self.values, 0))
        present = at < len(self.values) and self.values[at] == 0
        return int(self.counts[at]) if present else 0

    # ------------------------------------------------------------------ moments

    @cached_property
    def mean(self) -> float:
        """The mean; NaN, like the other moments, if there are no finite values."""
        return self._average(self._wide)

    @cached_property
    def deviation(self) -> float:
        """The population standard deviation (divided by n)."""
        return math.sqrt(self._average((self._wide - self.mean) ** 2)) if self.finite else math.nan

    @cached_property
    def kurtosis(self) -> float:
        """Excess kurtosis, E[(x − mean)⁴] / deviation⁴ − 3: 0 for a normal distribution, more for
        heavy tails."""
        if not self.finite or not self.deviation:
            return math.nan
        return self._average(((self._wide - self.mean) / self.deviation) ** 4) - 3

    @cached_property
    def norm(self) -> float:
        """The Frobenius norm: the square root of the sum of squares."""
        return math.sqrt(float((self._wide**2 * self.counts).sum()))

    # ------------------------------------------------------------------ order

    @property
    def minimum(self) -> float:
        """The smallest finite value."""
        return float(self.values[0]) if self.finite else math.nan

    @property
    def maximum(self) -> float:
        """The largest finite value."""
        return float(self.values[-1]) if self.finite else math.nan

    def quantile(self, share: float) -> float:
        """The smallest value that at least `share` of the values don't exceed."""
        if not self.finite:
            return math.nan
        at = np.searchsorted(self._up_to[1:], max(1, math.ceil(share * self.finite)))
        return float(self.values[min(int(at), len(self.values) - 1)])

    def beyond(self, k: float) -> float:
        """The share of values more than `k` deviations from the mean."""
        if not self.finite:
            return math.nan
        far = np.abs(self._wide - self.mean) > k * self.deviation
        return float(self.counts[far].sum()) / self.finite

    def histogram(self, edges: np.ndarray) -> np.ndarray:
        """Counts between ascending edges; as in `numpy.histogram`, the last bin has both edges."""
        edges = np.asarray(edges, np.float64)
        at = np.searchsorted(self._wide, edges, "left")
        at[-1] = np.searchsorted(self._wide, edges[-1], "right")
        return np.diff(self._up_to[at])

    def outside(self, low: float, high: float) -> tuple[int, int]:
        """The numbers of finite values below `low` and above `high`."""
        wide = self._wide
        lower = self._up_to[np.searchsorted(wide, low, "left")]
        upper = self._up_to[-1] - self._up_to[np.searchsorted(wide, high, "right")]
        return int(lower), int(upper)

    def facts(self) -> Facts:
        """The summary statistics."""

        def known(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return Facts(
            values=self.size,
            mean=known(self.mean),
            deviation=known(self.deviation),
            kurtosis=known(self.kurtosis),
            norm=self.norm,
            minimum=known(self.minimum),
            median=known(self.quantile(0.5)),
            maximum=known(self.maximum),
            zeros=self.zeros,
            beyond_2=known(self.beyond(2)),
            beyond_4=known(self.beyond(4)),
            nan=self.nan,
            infinite=self.above + self.below,
        )

    # ------------------------------------------------------------------ helpers

    @cached_property
    def _wide(self) -> np.ndarray:
        return self.values.astype(np.float64)

    @cached_property
    def _up_to(self) -> np.ndarray:
        """The number of finite values before each of `values`, then the number of all."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def _average(self, of: np.ndarray) -> float:
        return float((of * self.counts).sum()) / self.finite if self.finite else math.nan


def normal_beyond(k: float) -> float:
    """The share of a normal distribution more than `k` deviations from its mean."""
    return math.erfc(k / math.sqrt(2))


def _gather(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in ascending order, with the counts of equal ones added up."""
    if not len(values):
        return np.empty(0, np.float32), np.empty(0, np.int64)
    order = np.argsort(values, kind="stable")
    values, counts = values[order], counts[order]
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    distinct = values[first]
    return np.where(distinct == 0, np.float32(0), distinct), np.add.reduceat(counts, first)
