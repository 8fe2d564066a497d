"""Judge plans on a text that they were not chosen on.

A plan that was picked among many looks better on the text it was picked by than it is. So each is
measured once more on another, and compared there with random plans of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from surgery import texts
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .methods import random_plan
from .sample import Sample
from .score import LossIncrease, Score
from .significance import LEVEL, benjamini_hochberg, p_value
from .suggestions import PROTECTED, measured_score
from .target import Target

if TYPE_CHECKING:
    from surgery.base import Base

    from .methods import Suggestion

TOKENS = 2048  # to judge on, unless a precision takes fewer or is asked for
CONTROLS = 3  # random plans
_DRAWS = 4 * CONTROLS  # some may be alike


@dataclass(frozen=True)
class Judgement:
    """A plan on the text to judge on.

    `cost` is the increase of the loss over the base's. `gain` is the decrease from the mean loss of
    the controls, random plans of the same size, and `p` the probability of a difference as large by
    chance, corrected for the number of plans that were judged; both are None for a control itself
    and without any, and `p` where the text is too short to tell.
    """

    score: Score
    cost: LossIncrease
    gain: LossIncrease | None = None
    p: float | None = None

    @property
    def beats_control(self) -> bool | None:
        """Whether it is better than the controls by more than chance; None if there are none, or
        the text is too short to tell. A broken plan never is."""
        if self.gain is not None and not math.isfinite(self.score.perplexity):
            return False
        if self.gain is None or self.p is None:
            return None
        return self.gain.mean > 0 and self.p < LEVEL


def text_to_judge_on(
    base: Base, kind: str, window: int | None = None, limit: int = TOKENS
) -> Sample:
    """The half of the project's own texts of a kind that no plan is chosen on. Raises
    `SurgeryError`."""
    return Sample.of(base, texts.documents(kind, "judge"), window, limit)


def random_controls(
    base: Base,
    suggestions: Sequence[Suggestion],
    *,
    layers: int | None = None,
    parameters: int | None = None,
    protect: tuple[int, int] = PROTECTED,
    seed: int = 0,
) -> list[Plan]:
    """Random plans of the suggestions' size, drawn as `suggest` draws one: with the one among them,
    if it is there, and none that a method found. Fewer than `CONTROLS` where few different ones are
    drawn, as of a small base. Raises `SurgeryError`."""
    target = Target.of(base, layers, parameters, protect)
    plans = [one.plan for one in suggestions if one.method == "random"]
    taken = {one.plan for one in suggestions}
    for i in range(_DRAWS):
        plan = random_plan(target, seed + i)
        if plan is not None and plan not in taken and len(plans) < CONTROLS:
            plans.append(plan)
            taken.add(plan)
    return plans


def judge(
    base: Base,
    plans: Sequence[Plan],
    sample: Sample,
    controls: Sequence[Plan] = (),
    progress: Progress = silent,
) -> list[Judgement]:
    """Measure plans on a sample, and compare each with the base and with the `controls`: random
    plans, whose losses are averaged token by token. A plan that works is better than controls of
    which one doesn't.

    Raises `SurgeryError`, and `Refused` for a plan that can't be operated.
    """
    whole = measured_score(base, Plan.whole(base.depth), sample, progress)
    others = [measured_score(base, control, sample, progress).nll for control in controls]
    other = Score.of(np.mean(others, axis=0)) if others else None
    judged = []
    for plan in plans:
        score = measured_score(base, plan, sample, progress)
        gain = p = None
        if other and plan not in controls:
            gain = LossIncrease.of(other, score)
            broken = not math.isfinite(other.perplexity) and math.isfinite(score.perplexity)
            p = 0.0 if broken else p_value(np.subtract(score.nll, other.nll))
        judged.append(Judgement(score, LossIncrease.of(score, whole), gain, p))
    known = [one.p for one in judged if one.p is not None]
    corrected = iter(benjamini_hochberg(known))
    return [one if one.p is None else replace(one, p=next(corrected)) for one in judged]
