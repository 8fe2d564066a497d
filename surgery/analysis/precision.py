"""How precisely a cost is known, and how many tokens a given precision takes.

The width of an interval falls with the square root of the number of tokens, so a short measurement
tells how long one has to be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from surgery.errors import SurgeryError
from surgery.progress import Progress, silent

from .sample import Sample
from .score import LossIncrease

if TYPE_CHECKING:
    from surgery.model import Model

PRECISION = 0.1  # of the cost, by default
FOR_SCANS = 0.4  # enough to rank layers, whose costs differ by factors
PILOT = 512  # tokens of the short measurement
FINEST = 0.005  # nats per token: a cost near zero needn't be known to a share of itself


@dataclass(frozen=True)
class Size:
    """How much text costs take: `tokens` to know half of them to ± `precision` of themselves (or to
    ± `FINEST`, if that is more), and about how many `seconds` that takes. Both are None if no cost
    is finite, and `seconds` if the costs were known."""

    precision: float
    tokens: int | None
    seconds: float | None


def precision_of(cost: LossIncrease) -> float | None:
    """Half the width of the 95 % interval, as a share of the cost. None if that is no number."""
    half, mean = (cost.high - cost.low) / 2, abs(cost.mean)
    return half / mean if mean and math.isfinite(half) and math.isfinite(mean) else None


def tokens_for(cost: LossIncrease, tokens: int, precision: float = PRECISION) -> int | None:
    """How many tokens a cost takes that was measured on `tokens` of them, to be known to
    ± `precision` of it, or to ± `FINEST` if that is more. None if it isn't finite."""
    half = (cost.high - cost.low) / 2
    if not math.isfinite(half):
        return None
    return math.ceil(tokens * (half / max(precision * abs(cost.mean), FINEST)) ** 2)


def median_precision(costs: Iterable[LossIncrease]) -> float | None:
    """The median of `precision_of`, over costs for which it is a number."""
    known = [share for cost in costs if (share := precision_of(cost)) is not None]
    return median(known) if known else None


def median_tokens(
    costs: Iterable[LossIncrease], tokens: int, precision: float = PRECISION
) -> int | None:
    """The median of `tokens_for`, over costs that are finite: as many make half of them precise."""
    counts = [tokens_for(cost, tokens, precision) for cost in costs]
    known = [count for count in counts if count is not None]
    return math.ceil(median(known)) if known else None


def size_of(
    sample: Sample,
    measure: Callable[[Sample, Progress], Iterable[LossIncrease]],
    precision: float = PRECISION,
    progress: Progress = silent,
    base: Model | None = None,
) -> Size:
    """Measure costs on a short `sample` to find out how much text they take. `measure` is timed,
    and has to report progress unless it finds what was measured before. The time starts once the
    weights of `base` are loaded: loading takes as long for any text."""
    begun: list[float] = []

    def reported(what: str, done: float, total: float) -> None:
        if base is None or base.is_loaded:
            begun.append(time.monotonic())
        progress(what, done, total)

    tokens = median_tokens(measure(sample, reported), sample.tokens, precision)
    if tokens is None or not begun:
        return Size(precision, tokens, None)
    return Size(precision, tokens, (time.monotonic() - begun[0]) * tokens / sample.tokens)


def check_precision(precision: float) -> None:
    """Raise `SurgeryError` for a precision that isn't between 0 and 1."""
    if not 0 < precision < 1:
        raise SurgeryError("A precision is a share of the cost: choose one between 0 and 100 %.")
