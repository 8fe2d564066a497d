"""Weight statistics layer by layer, and the change at each seam of a plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.plan import Plan

from .value_counts import ValueCounts

if TYPE_CHECKING:
    from .survey import Picture


@dataclass(frozen=True)
class Measure:
    """A statistic of a layer's weights: its name, its unit, what to look for, how to compute it."""

    name: str
    unit: str
    hint: str
    of: Callable[[ValueCounts], float]


MEASURES = {
    "norm": Measure(
        "Norm",
        "Frobenius norm, √Σw²",
        "The size of a layer's weights taken together. A jump at a seam means that the layers that "
        "meet there have weights of different size; it doesn't measure their inputs or the damage.",
        lambda counts: counts.norm,
    ),
    "deviation": Measure(
        "Deviation",
        "standard deviation of the weights",
        "Randomly initialised layers share one value, often 0.02; after training they differ.",
        lambda counts: counts.deviation,
    ),
    "kurtosis": Measure(
        "Kurtosis",
        "excess kurtosis (normal: 0)",
        "0 for a normal distribution, as at random initialisation; training produces heavy tails.",
        lambda counts: counts.kurtosis,
    ),
    "beyond_2": Measure(
        "Beyond 2σ",
        "% of weights beyond 2σ (normal: 4.55)",
        "A normal distribution has 4.55 % beyond two deviations; one truncated there, none.",
        lambda counts: 100 * counts.beyond(2),
    ),
    "beyond_4": Measure(
        "Outliers beyond 4σ",
        "% of weights beyond 4σ (normal: 0.006)",
        "Layers with many outliers lose most when weights are quantized to few bits.",
        lambda counts: 100 * counts.beyond(4),
    ),
}


@dataclass(frozen=True)
class Seam:
    """A break in the base's order: the layer at `position` is the base's layer `after`, and the one
    before it is the base's layer `before`, which is not its predecessor there."""

    position: int
    before: int
    after: int


def seams(plan: Plan) -> list[Seam]:
    """The seams between two layers of a plan; a missing first or last layer is not among them."""
    sources, inner = plan.sources, range(1, len(plan))
    return [Seam(p, sources[p - 1], sources[p]) for p in plan.seams if p in inner]


def along(picture: Picture, measure: str, kind: str | None = None) -> list[float | None]:
    """The measure of every layer in running order; None where it isn't finite."""
    values = (MEASURES[measure].of(picture.layer(p, kind)) for p in range(len(picture.layers)))
    return [value if math.isfinite(value) else None for value in values]


def jump(values: list[float | None], position: int) -> float | None:
    """The relative change from the layer before; None where it is undefined."""
    before, after = values[position - 1], values[position]
    return after / before - 1 if before and after is not None else None
