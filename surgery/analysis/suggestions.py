"""Suggest plans for a target size by the methods of `methods`, and measure each of them.

The layers at both ends are protected, because scores misjudge them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from surgery.errors import SurgeryError
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .cache import MeasurementCache
from .layer_scan import scan
from .methods import GROW, METHODS, SHRINK, Case, Suggestion
from .passes import perplexity
from .sample import Sample
from .score import Score
from .target import Target

if TYPE_CHECKING:
    from surgery.base import Base

PROTECTED = (1, 1)  # layers at the start and at the end that are never dropped or repeated


def suggest(
    base: Base,
    sample: Sample,
    *,
    layers: int | None = None,
    parameters: int | None = None,
    methods: Sequence[str] | None = None,
    protect: tuple[int, int] = PROTECTED,
    seed: int = 0,
    measured: bool = True,
    on_update: Callable[[list[Suggestion]], None] | None = None,
    progress: Progress = silent,
) -> list[Suggestion]:
    """Plans with `layers` layers, or with at most `parameters` parameters; lowest perplexity first.

    `methods` are keys of `METHODS` that lead to this size; without them, all that do. `protect` is
    the number of layers at the start and at the end that stay as they are. `seed` is that of the
    random control. Each plan is measured unless `measured` is False. `on_update` gets the
    suggestions so far whenever something is added. `progress` may raise to stop; what is measured
    by then stays cached. Raises `SurgeryError` where no plan fits.
    """
    target = Target.of(base, layers, parameters, protect)
    allowed = GROW if target.grows else SHRINK
    methods = tuple(methods or allowed)
    if unknown := [m for m in methods if m not in allowed]:
        raise SurgeryError(
            f"“{str(unknown[0])[:40]}” doesn't lead to {target.words}: {', '.join(allowed)} do."
        )
    suggestions: list[Suggestion] = []
    update = on_update or (lambda _: None)
    needed = dict.fromkeys(METHODS[m].score for m in methods if METHODS[m].score)
    scores = scan(base, sample, scores=tuple(needed), progress=progress)  # at least the base's own
    for method in methods:
        one = METHODS[method].find(Case(base, sample, scores, target, seed, progress))
        if one is None:
            continue
        suggestions.append(one)
        update(list(suggestions))
        if measured and one.measured is None:
            suggestions[-1] = measure(base, one, sample, progress)
            update(list(suggestions))
    if not suggestions:
        raise SurgeryError(f"No method found a plan of {target.words} for this base.")
    suggestions.sort(key=lambda one: one.measured.perplexity if one.measured else math.inf)
    return suggestions


def measure(
    base: Base, suggestion: Suggestion, sample: Sample, progress: Progress = silent
) -> Suggestion:
    """The suggestion with its measured perplexity. Raises `Refused` if it can't be operated."""
    return replace(suggestion, measured=measured_score(base, suggestion.plan, sample, progress))


def measured_score(base: Base, plan: Plan, sample: Sample, progress: Progress = silent) -> Score:
    """The perplexity of a plan on a sample, measured only if it isn't cached."""
    cache = MeasurementCache(base, sample, progress)
    losses = cache.get(plan, (sample.tokens,))
    if losses is None:
        score = perplexity(base.operate(plan).model, sample, progress, (base, plan))
        cache.put(plan, np.array(score.nll, np.float32))
        return score
    return Score.of(losses)
