"""Estimate what a plan costs on a text, from its first window on, refined window by window.

The last estimate is of the whole sample. Its losses are cached like those of a scan, so that none
is measured again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedModel

from surgery.architecture.inspect.hooks import layers_of, watched
from surgery.compute.contexts import many_rows
from surgery.errors import SurgeryError
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .cache import MeasurementCache
from .comparison import patient_of
from .methods import random_plan
from .passes import ids_of, nll, perplexity, run
from .sample import Sample
from .score import LossIncrease, Score
from .suggestions import PROTECTED, measured_score
from .target import Target

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.patient import Patient


@dataclass(frozen=True)
class Estimate:
    """Base and patient on the first windows of a sample, on all of them if `is_final`."""

    base: Score
    patient: Score
    is_final: bool

    @property
    def increase(self) -> LossIncrease:
        """The increase of the mean loss over the base's, in nats per token."""
        return LossIncrease.of(self.patient, self.base)


def estimate(
    base: Base,
    of: Plan | Patient,
    sample: Sample,
    on_update: Callable[[Estimate], None] = lambda _: None,
    progress: Progress = silent,
) -> Estimate:
    """The cost of a plan, or of a patient such as a healed one. What is cached isn't measured.

    `on_update` gets an estimate after each window but the last. `progress` counts layers and may
    raise between any two. Where weights are read from disk, there is only the last estimate. Raises
    `SurgeryError`.
    """
    cache = MeasurementCache(base, sample, progress)
    whole = Plan.whole(base.depth)
    if isinstance(of, Plan) and (known := _known(cache, whole, of, sample)):
        return known
    base.load(progress)
    if base.reads_from_disk:
        score = measured_score(base, whole, sample, progress)
        if isinstance(of, Plan):
            return Estimate(score, measured_score(base, of, sample, progress), True)
        return Estimate(score, perplexity(of.model, sample, progress), True)
    sides = [_Side.of(base, one, sample, cache) for one in (whole, of)]
    if of == whole:
        sides[1] = sides[0]
    todo = [side for side in dict.fromkeys(sides) if side.known is None]
    windows = sample.batches(1)
    meter = Meter(progress, "Measuring", len(windows) * sum(len(side.plan) for side in todo))
    scored = 0
    with many_rows(base.model):
        for window in windows:
            for side in todo:
                side.measure(sample, window, meter)
            scored += sum(len(ids) - 1 for ids in sample.windows[slice(*window)])
            if scored < sample.tokens:
                on_update(Estimate(sides[0].score(scored), sides[1].score(scored), False))
    for side in todo:
        if side.is_of_plan:
            cache.put(side.plan, side.losses)
    return Estimate(sides[0].score(scored), sides[1].score(scored), True)


def known_estimate(base: Base, plan: Plan, sample: Sample) -> Estimate | None:
    """The last estimate of a plan if it is cached; nothing is loaded or measured."""
    cache = MeasurementCache(base, sample, progress=None)
    return _known(cache, Plan.whole(base.depth), plan, sample)


def control(base: Base, plan: Plan) -> Plan | None:
    """The random plan to compare with: as many layers dropped or repeated, drawn as the
    suggestions' control is. None for a plan of as many layers as the base, and where no layers can
    be drawn."""
    try:
        return random_plan(Target.of(base, len(plan), None, PROTECTED))
    except SurgeryError:
        return None


def _known(cache: MeasurementCache, whole: Plan, plan: Plan, sample: Sample) -> Estimate | None:
    losses = [cache.get(one, (sample.tokens,)) for one in (whole, plan)]
    if any(values is None for values in losses):
        return None
    base, patient = (Score.of(values) for values in losses if values is not None)
    return Estimate(base, patient, True)


@dataclass(eq=False)
class _Side:
    """Base or patient: its losses so far, all of them in `known` if they are cached."""

    base: Base
    plan: Plan
    model: PreTrainedModel
    is_of_plan: bool  # and so cached by it
    known: np.ndarray | None
    parts: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, base: Base, of: Plan | Patient, sample: Sample, cache: MeasurementCache) -> _Side:
        patient, is_plan = patient_of(base, of), isinstance(of, Plan)
        known = cache.get(patient.plan, (sample.tokens,)) if is_plan else None
        return cls(base, patient.plan, patient.model, is_plan, known)

    @property
    def losses(self) -> np.ndarray:
        """Those that are there, in reading order."""
        return np.concatenate(self.parts) if self.known is None else self.known

    def measure(self, sample: Sample, window: tuple[int, int], meter: Meter) -> None:
        """Add the losses of a window."""
        ids, layers = ids_of(self.model, sample, *window), layers_of(self.base.anatomy, self.model)
        with watched(layers or (), lambda *_: meter.add(1)):
            self.parts.append(nll(run(self.model, ids), ids))
        if layers is None:
            meter.add(len(self.plan))

    def score(self, tokens: int) -> Score:
        """The perplexity of the first tokens."""
        return Score.of(self.losses[:tokens])
