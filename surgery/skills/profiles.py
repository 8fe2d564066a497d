"""The profile of a model: its margins on the items of every skill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from surgery.analysis.comparison import patient_of
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .cache import MarginCache, name_of
from .grading import margins
from .intervals import wilson
from .item import Item
from .registry import ITEMS, SKILLS, items_of

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.patient import Patient


@dataclass(frozen=True)
class SkillScore:
    """A model's margins on the items of a skill, in nats. `chance` is the share of items that a
    guess among the continuations gets right."""

    margins: tuple[float, ...]
    chance: float

    @property
    def accuracy(self) -> float:
        """The share of items with a margin above 0. One that is not a number counts as wrong."""
        return self._right / len(self.margins)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % interval."""
        return wilson(self._right, len(self.margins))

    @property
    def mean(self) -> float:
        """The mean margin in nats."""
        return float(np.mean(self.margins))

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval of the accuracy is above chance."""
        return self.interval[0] > self.chance

    @property
    def _right(self) -> int:
        return sum(margin > 0 for margin in self.margins)


@dataclass(frozen=True)
class Profile:
    """A model's scores by the key of the skill, and what its items were drawn with."""

    scores: Mapping[str, SkillScore]
    items: int
    seed: int


def profile(
    base: Base,
    of: Plan | Patient | None = None,
    *,
    skills: Sequence[str] = tuple(SKILLS),
    items: int = ITEMS,
    seed: int = 0,
    progress: Progress = silent,
    cache: MarginCache | None = None,
) -> Profile:
    """Probe skills of a base, or of a plan's patient, or of one given, such as a healed one.

    `skills` are keys of `SKILLS`; each gets `items` items (8 to 1,000), the same for a `seed`.
    Items that were graded before are taken from the `cache`: by default that of the plan; a patient
    that is given has none. `progress` counts tokens times layers and may raise. Raises
    `SurgeryError`.
    """
    drawn = {key: items_of(key, items, seed) for key in skills}
    of = Plan.whole(base.depth) if of is None else of
    if cache is None:
        cache = MarginCache.of(base, of, progress) if isinstance(of, Plan) else MarginCache()
    known = {key: cache.get(name_of(key, seed))[:items] for key in skills}
    missing = [item for key, of_skill in drawn.items() for item in of_skill[len(known[key]) :]]
    if missing:
        base.load(progress)
        patient = patient_of(base, of)
        graded = iter(margins(base, patient.model, patient.plan, missing, progress))
        for key in skills:
            if wanted := items - len(known[key]):
                known[key] += tuple(next(graded) for _ in range(wanted))
                cache.put(name_of(key, seed), known[key])
    scores = {key: SkillScore(known[key], _chance(drawn[key])) for key in skills}
    return Profile(scores, items, seed)


def _chance(items: Sequence[Item]) -> float:
    return float(np.mean([1 / len(item.continuations) for item in items]))
