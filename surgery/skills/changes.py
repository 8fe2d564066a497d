"""Compare a patient's profile with its base's, skill by skill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from .intervals import Change
from .profiles import Profile, SkillScore
from .registry import SKILLS, Skill

Verdict = Literal["at chance", "lost", "weaker", "kept", "gained"]
VERDICTS: tuple[Verdict, ...] = ("lost", "weaker", "kept", "gained", "at chance")  # worst first


@dataclass(frozen=True)
class SkillChange:
    """What became of a skill. `margin` is the change of the mean margin, paired over the items."""

    skill: Skill
    base: SkillScore
    patient: SkillScore
    margin: Change

    @cached_property
    def accuracy(self) -> Change:
        """The change of the share of right answers, paired over the items."""
        base, patient = ([float(m > 0) for m in x.margins] for x in (self.base, self.patient))
        return Change.of(base, patient)

    @property
    def verdict(self) -> Verdict:
        """In a word.

        “at chance”: the base's accuracy isn't clearly above chance, so nothing can be said of what
        the plan did. Otherwise by the intervals of the changes, of the mean margin and of the
        accuracy: if either is below 0, “lost” if the patient is no longer clearly above chance,
        else “weaker”; “gained” if that of the margin is above 0; “kept” if no change shows.
        """
        if not self.base.beats_chance:
            return "at chance"
        if self.margin.high < 0 or self.accuracy.high < 0:
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


def counted(changes: Sequence[SkillChange]) -> str:
    """How many skills got each verdict, worst first: “1 lost, 6 weaker, 1 kept, 1 at chance”."""
    counts = Counter(change.verdict for change in changes)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
