"""The counts of a set of numbers, and all that follows from them. Knows numpy alone.

Moments and shares speak of the finite values; NaN and infinities are counted apart, so that one of
them spoils nothing and none goes unseen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Facts:
    """What one tally says in plain numbers; None where there is no value to say it of.

    `deviation` is the population's; `kurtosis` is in excess of the normal distribution's;
    `beyond` k is the share of values further than k deviations from the mean.
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
class Tally:
    """`values` are distinct, finite and ascending (float32); `counts` says how often each occurs.

    `rounded` is True where values were counted at the nearest bfloat16, as those of wider types
    are: every value is then right to one part in 256.
    """

    values: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    nan: int = 0
    above: int = 0  # +inf
    below: int = 0  # -inf
    rounded: bool = False

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray, rounded: bool = False) -> Tally:
        """From values in any order, NaN, infinities and both zeros among them."""
        values, counts = np.asarray(values, np.float32), np.asarray(counts, np.int64)
        values, counts = values[counts > 0], counts[counts > 0]
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
    def merged(cls, tallies: Iterable[Tally]) -> Tally:
        """All of them as one."""
        parts = list(tallies)
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

    # ------------------------------------------------------------------ how many

    @cached_property
    def finite(self) -> int:
        """How many finite values there are."""
        return int(self.counts.sum())

    @property
    def size(self) -> int:
        """How many values there are, NaN and infinities among them."""
        return self.finite + self.nan + self.above + self.below

    @property
    def zeros(self) -> int:
        """How many are zero, of either sign."""
        at = int(np.searchsorted(self.values, 0))
        found = at < len(self.values) and self.values[at] == 0
        return int(self.counts[at]) if found else 0

    # ------------------------------------------------------------------ moments

    @cached_property
    def mean(self) -> float:
        """NaN if there is no value, as all that follow."""
        return self._average(self._wide)

    @cached_property
    def deviation(self) -> float:
        """Standard deviation of the whole population (divided by n)."""
        return math.sqrt(self._average((self._wide - self.mean) ** 2)) if self.finite else math.nan

    @cached_property
    def kurtosis(self) -> float:
        """E[(x − mean)⁴] / deviation⁴ − 3: 0 for a normal distribution, more for heavy tails."""
        if not self.finite or not self.deviation:
            return math.nan
        return self._average(((self._wide - self.mean) / self.deviation) ** 4) - 3

    @cached_property
    def norm(self) -> float:
        """The Frobenius norm: the root of the sum of squares."""
        return math.sqrt(float((self._wide**2 * self.counts).sum()))

    # ------------------------------------------------------------------ order

    @property
    def minimum(self) -> float:
        """The least finite value."""
        return float(self.values[0]) if self.finite else math.nan

    @property
    def maximum(self) -> float:
        """The greatest finite value."""
        return float(self.values[-1]) if self.finite else math.nan

    def quantile(self, share: float) -> float:
        """The least value that at least `share` of the values don't exceed."""
        if not self.finite:
            return math.nan
        at = np.searchsorted(self._up_to[1:], max(1, math.ceil(share * self.finite)))
        return float(self.values[min(int(at), len(self.values) - 1)])

    def beyond(self, k: float) -> float:
        """The share of values further than `k` deviations from the mean."""
        if not self.finite:
            return math.nan
        far = np.abs(self._wide - self.mean) > k * self.deviation
        return float(self.counts[far].sum()) / self.finite

    def histogram(self, edges: np.ndarray) -> np.ndarray:
        """Counts between ascending edges, as `numpy.histogram`: the last bin has both its edges."""
        edges = np.asarray(edges, np.float64)
        at = np.searchsorted(self._wide, edges, "left")
        at[-1] = np.searchsorted(self._wide, edges[-1], "right")
        return np.diff(self._up_to[at])

    def outside(self, low: float, high: float) -> tuple[int, int]:
        """How many finite values are less than `low`, and how many more than `high`."""
        wide = self._wide
        lower = self._up_to[np.searchsorted(wide, low, "left")]
        upper = self._up_to[-1] - self._up_to[np.searchsorted(wide, high, "right")]
        return int(lower), int(upper)

    def facts(self) -> Facts:
        """In plain numbers."""

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
        """How many values come before each of `values`, and how many there are."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def _average(self, of: np.ndarray) -> float:
        return float((of * self.counts).sum()) / self.finite if self.finite else math.nan


def normal_beyond(k: float) -> float:
    """The share of a normal distribution further than `k` deviations from its mean."""
    return math.erfc(k / math.sqrt(2))


def _gather(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values ascending, with the counts of equal ones added up."""
    if not len(values):
        return np.empty(0, np.float32), np.empty(0, np.int64)
    order = np.argsort(values, kind="stable")
    values, counts = values[order], counts[order]
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    distinct = values[first]
    return np.where(distinct == 0, np.float32(0), distinct), np.add.reduceat(counts, first)
