"""Compare a patient's profile with its base's, skill by skill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .intervals import Change
from .profiles import Profile, SkillScore
from .registry import SKILLS, Skill

Verdict = Literal["at chance", "lost", "weaker", "kept", "gained"]


@dataclass(frozen=True)
class SkillChange:
    """What became of a skill. `margin` is the change of the mean margin, paired over the items."""

    skill: Skill
    base: SkillScore
    patient: SkillScore
    margin: Change

    @property
    def verdict(self) -> Verdict:
        """In a word.

        “at chance”: the base's accuracy isn't clearly above chance, so nothing can be said of what
        the plan did. Otherwise by the interval of the change: “kept” if it includes 0, “gained” if
        it is above, and below it “lost” if the patient is no longer clearly above chance, else
        “weaker”.
        """
        if not self.base.beats_chance:
            return "at chance"
        if self.margin.high < 0:
            return "weaker" if self.patient.beats_chance else "lost"
        return "gained" if self.margin.low > 0 else "kept"


def compare_skills(base: Profile, patient: Profile) -> tuple[SkillChange, ...]:
    """The changes from one profile to another, in the order of the base's.

    Both have to be of the same skills and items; raises `ValueError` otherwise.
    """
    if (base.items, base.seed, [*base.scores]) != (patient.items, patient.seed, [*patient.scores]):
        raise ValueError("profiles of different items can't be compared")
    return tuple(
        SkillChange(SKILLS[key], score, other, Change.of(score.margins, other.margins))
        for (key, score), other in zip(base.scores.items(), patient.scores.values(), strict=True)
    )
