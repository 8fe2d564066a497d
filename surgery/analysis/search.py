"""Greedy search (SLEB, arXiv 2402.09025): drop the layer that costs least, measure anew, go on.

Each round begins with a pass of the plan so far, of which only the layers behind the last cut are
computed, and each candidate begins where it differs from that. Knows losses; whatever was measured
before is not measured again, so a search that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from surgery.errors import Refused
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .cache import MeasurementCache
from .forward_cache import Kept, Passes, same_layers
from .sample import Sample
from .score import Score
from .target import Target

if TYPE_CHECKING:
    from surgery.base import Base


def greedy(
    base: Base, sample: Sample, target: Target, progress: Progress = silent
) -> tuple[Plan, list[int]] | None:
    """The plan of the target's size, and its layers in the order in which they were dropped; None
    if no layer can be dropped any more before it is reached."""
    plan, dropped, runner = Plan.whole(base.depth), [], _Runner(base, sample, progress)
    while not target.reached(plan):
        candidates = {
            i: Plan.of([j for j in plan.sources if j != i], base.depth)
            for i in target.touchable
            if i in plan.sources and len(plan) > 1
        }
        what = f"Searching: {len(dropped) + 1} dropped"
        losses = runner.measure(plan, list(candidates.values()), what)
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
    """The scores of several plans, each begun where it differs from the base. Plans that can't be
    operated are left out."""
    runner = _Runner(base, sample, progress)
    losses = runner.measure(Plan.whole(base.depth), plans, "Measuring plans")
    return {plan: Score.of(found) for plan, found in losses.items()}


class _Runner:
    """Measures variants of one plan after another."""

    def __init__(self, base: Base, sample: Sample, progress: Progress) -> None:
        self.base, self.sample, self.progress = base, sample, progress
        self.measured = MeasurementCache(base, sample)
        self.passes: Passes | None = None
        self.kept: Kept | None = None

    def measure(self, plan: Plan, variants: Sequence[Plan], what: str) -> dict[Plan, np.ndarray]:
        """Losses of the variants that can be operated."""
        found = {v: self.measured.get(v, (self.sample.tokens,)) for v in variants}
        todo = [v for v in variants if found[v] is None]
        if todo:
            self.base.load(self.progress)
            self.passes = self.passes or Passes(self.base, self.sample)
            total = sum(self.passes.cost(v, plan) for v in todo)
            total += len(plan) - (same_layers(plan, self.kept.plan) if self.kept else 0)
            self.passes.meter = Meter(self.progress, what, total)
            self.kept = self.passes.keep(plan, like=self.kept)
            self.measured.put(plan, self.kept.nll)
            for variant in todo:
                try:
                    found[variant] = self.passes.losses(variant, self.kept)
                except Refused:
                    continue
                self.measured.put(variant, found[variant])
        return {v: losses for v, losses in found.items() if losses is not None}


def _mean(losses: np.ndarray) -> float:
    mean = float(losses.mean())
    return mean if np.isfinite(mean) else float("inf")
