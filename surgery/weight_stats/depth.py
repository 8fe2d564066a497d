"""Statistics along the depth of a model, and the seams where a plan breaks the base's order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.plan import Plan

from .value_counts import Tally

if TYPE_CHECKING:
    from .survey import Picture


@dataclass(frozen=True)
class Measure:
    """A number that a tally has, how it is called, its unit, and what to look for in it."""

    name: str
    unit: str
    hint: str
    of: Callable[[Tally], float]


MEASURES = {
    "norm": Measure(
        "Norm",
        "Frobenius norm, √Σw²",
        "A cliff at a seam means that a layer gets inputs of another size than it was trained on.",
        lambda tally: tally.norm,
    ),
    "deviation": Measure(
        "Deviation",
        "standard deviation of the weights",
        "Fresh layers all have the initialiser's, often 0.02; training spreads them apart.",
        lambda tally: tally.deviation,
    ),
    "kurtosis": Measure(
        "Kurtosis",
        "excess kurtosis (normal: 0)",
        "0 is a normal distribution, as at the start; training grows heavy tails.",
        lambda tally: tally.kurtosis,
    ),
    "beyond_2": Measure(
        "Beyond 2σ",
        "% of weights beyond 2σ (normal: 4.55)",
        "A normal distribution has 4.55 % beyond two deviations; a truncated one has none.",
        lambda tally: 100 * tally.beyond(2),
    ),
    "beyond_4": Measure(
        "Outliers beyond 4σ",
        "% of weights beyond 4σ (normal: 0.006)",
        "Layers with many outliers suffer first when weights are rounded to few bits.",
        lambda tally: 100 * tally.beyond(4),
    ),
}


@dataclass(frozen=True)
class Seam:
    """A break in the order: `position` follows on another layer than it does in the base."""

    position: int
    before: int
    after: int


def seams(plan: Plan) -> list[Seam]:
    """Where the patient's layer is not the one that follows in the base."""
    sources = plan.sources
    return [
        Seam(p, sources[p - 1], sources[p])
        for p in range(1, len(sources))
        if sources[p] != sources[p - 1] + 1
    ]


def along(picture: Picture, measure: str, kind: str | None = None) -> list[float | None]:
    """The measure of every layer in running order; None where a layer has no such number."""
    values = (MEASURES[measure].of(picture.layer(p, kind)) for p in range(len(picture.layers)))
    return [value if math.isfinite(value) else None for value in values]


def jump(values: list[float | None], position: int) -> float | None:
    """The change from the layer before, as a share of it; None where there is none."""
    before, after = values[position - 1], values[position]
    return after / before - 1 if before and after is not None else None
