"""Greedy search, and measuring many plans at once.

Greedy search (SLEB, arXiv 2402.09025) drops the layer that costs least, measures all others again,
and goes on. Each round records a pass of the plan so far, of which only the layers after the last
cut are computed, and each candidate starts where it differs from it. Measurements are cached, so
that a search that was stopped resumes where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from surgery.errors import Refused
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .cache import MeasurementCache
from .forward_cache import CachedForward, ForwardRunner, same_layers
from .sample import Sample
from .score import Score
from .target import Target

if TYPE_CHECKING:
    from surgery.base import Base


def greedy(
    base: Base, sample: Sample, target: Target, progress: Progress = silent
) -> tuple[Plan, list[int]] | None:
    """The plan of the target's size, and its layers in the order in which they were dropped; None
    if no further layer can be dropped before the size is reached."""
    plan, measuring = Plan.whole(base.depth), _Measuring(base, sample, progress)
    dropped: list[int] = []
    while not target.reached(plan):
        candidates = {
            i: Plan.of([j for j in plan.sources if j != i], base.depth)
            for i in target.touchable
            if i in plan.sources and len(plan) > 1
        }
        what = f"Searching: {len(dropped) + 1} dropped"
        losses = measuring.losses(plan, list(candidates.values()), what)
        means = {i: _mean(losses[p]) for i, p in candidates.items() if p in losses}
        if not means:
            return None
        best = min(means, key=lambda i: means[i])
        dropped.append(best)
        plan = candidates[best]
    return plan, dropped


def measure_all(
    base: Base, plans: Sequence[Plan], sample: Sample, progress: Progress = silent
) -> dict[Plan, Score]:
    """The perplexities of several plans, each started where it differs from the base. Plans that
    can't be operated are left out."""
    measuring = _Measuring(base, sample, progress)
    losses = measuring.losses(Plan.whole(base.depth), plans, "Measuring plans")
    return {plan: Score.of(values) for plan, values in losses.items()}


class _Measuring:
    """Measures the variants of one plan after another."""

    def __init__(self, base: Base, sample: Sample, progress: Progress) -> None:
        self.base, self.sample, self.progress = base, sample, progress
        self.cache = MeasurementCache(base, sample, progress)
        self.runner: ForwardRunner | None = None
        self.recorded: CachedForward | None = None

    def losses(self, plan: Plan, variants: Sequence[Plan], what: str) -> dict[Plan, np.ndarray]:
        """Losses of the variants that can be operated."""
        known = {v: self.cache.get(v, (self.sample.tokens,)) for v in variants}
        losses = {v: values for v, values in known.items() if values is not None}
        todo = [v for v in variants if v not in losses]
        if todo:
            self.base.load(self.progress)
            self.runner = self.runner or ForwardRunner(self.base, self.sample)
            total = sum(self.runner.cost(v, plan) for v in todo)
            total += len(plan) - (same_layers(plan, self.recorded.plan) if self.recorded else 0)
            self.runner.meter = Meter(self.progress, what, total)
            with self.runner.computing():
                self.recorded = self.runner.record(plan, self.recorded)
                self.cache.put(plan, self.recorded.nll)
                for variant, values in self.runner.each_losses(todo, self.recorded):
                    if not isinstance(values, Refused):
                        losses[variant] = values
                        self.cache.put(variant, values)
        return losses


def _mean(losses: np.ndarray) -> float:
    mean = float(losses.mean())
    return mean if np.isfinite(mean) else float("inf")
