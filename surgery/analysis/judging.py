"""Judge plans on a text that they were not chosen on.

A plan that was picked among many looks better on the text it was picked by than it is. So each is
measured once more on another, and compared there with a random plan of the same size.
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

from .sample import Sample
from .score import LossIncrease, Score
from .significance import LEVEL, benjamini_hochberg, p_value
from .suggestions import measured_score

if TYPE_CHECKING:
    from surgery.base import Base

    from .methods import Suggestion

TOKENS = 2048  # of the project's own texts to judge on


@dataclass(frozen=True)
class Judgement:
    """A plan on the text to judge on.

    `cost` is the increase of the loss over the base's. `gain` is the decrease from the control's, a
    random plan of the same size, and `p` the probability of a difference as large by chance,
    corrected for the number of plans that were judged; both are None for the control itself and
    without one, and `p` where the text is too short to tell.
    """

    score: Score
    cost: LossIncrease
    gain: LossIncrease | None = None
    p: float | None = None

    @property
    def beats_control(self) -> bool | None:
        """Whether it is better than the control by more than chance; None if there is none."""
        if self.gain is None or self.p is None:
            return None
        return self.gain.mean > 0 and self.p < LEVEL


def text_to_judge_on(
    base: Base, kind: str, window: int | None = None, limit: int = TOKENS
) -> Sample:
    """The half of the project's own texts of a kind that no plan is chosen on. Raises
    `SurgeryError`."""
    return Sample.of(base, texts.documents(kind, "judge"), window, limit)


def judge_suggestions(
    base: Base, suggestions: Sequence[Suggestion], sample: Sample, progress: Progress = silent
) -> list[Judgement]:
    """Judge suggestions; the random one among them, if there is one, is the control."""
    control = next((one.plan for one in suggestions if one.method == "random"), None)
    return judge(base, [one.plan for one in suggestions], sample, control, progress)


def judge(
    base: Base,
    plans: Sequence[Plan],
    sample: Sample,
    control: Plan | None = None,
    progress: Progress = silent,
) -> list[Judgement]:
    """Measure plans on a sample, and compare each with the base and with the `control`, which is
    one random plan: others may be better or worse. A plan that works is better than a control that
    doesn't.

    Raises `SurgeryError`, and `Refused` for a plan that can't be operated.
    """
    whole = measured_score(base, Plan.whole(base.depth), sample, progress)
    other = measured_score(base, control, sample, progress) if control else None
    judged = []
    for plan in plans:
        score = measured_score(base, plan, sample, progress)
        gain = p = None
        if other and plan != control:
            gain = LossIncrease.of(other, score)
            broken = not math.isfinite(other.perplexity) and math.isfinite(score.perplexity)
            p = 0.0 if broken else p_value(np.subtract(score.nll, other.nll))
        judged.append(Judgement(score, LossIncrease.of(score, whole), gain, p))
    known = [one.p for one in judged if one.p is not None]
    corrected = iter(benjamini_hochberg(known))
    return [one if one.p is None else replace(one, p=next(corrected)) for one in judged]
