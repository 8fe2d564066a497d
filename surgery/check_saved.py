"""Check a saved model against limits: what it may cost, and which skills it has to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .analysis import LossIncrease, Sample, measured_score
from .errors import SaveError, SurgeryError
from .plan import Plan
from .progress import Progress, silent
from .skills import SKILLS, compare_skills, profile

if TYPE_CHECKING:
    from .base import Base

_KEEPING = ("kept", "gained")


@dataclass(frozen=True)
class Requirement:
    """One limit, what was measured, and whether the model passes. `reason` says why not."""

    name: str
    limit: str
    measured: str
    passed: bool
    reason: str = ""


def check_saved(
    saved: Base,
    base: Base,
    sample: Sample | None,
    *,
    max_cost: float | None = None,
    keep: Sequence[str] = (),
    progress: Progress = silent,
) -> list[Requirement]:
    """Check a saved model, opened as a base of its own, against the base that it was made from.

    `max_cost` is in nats per token over the base's loss on the `sample`, which is made for the
    base and needed for this alone: the whole 95 % interval has to lie at or below it. `keep` are
    keys of `SKILLS`: the base has to be above chance, and no loss may show. Raises `SurgeryError`;
    `SaveError` if the two don't read text alike.
    """
    requirements = []
    if max_cost is not None and not math.isfinite(max_cost):
        raise SurgeryError("The highest cost has to be a number of nats per token.")
    if unknown := [key for key in keep if key not in SKILLS]:
        raise SurgeryError(f"There is no skill “{unknown[0][:40]}”. Skills: {', '.join(SKILLS)}.")
    if max_cost is not None and sample is not None:
        _check_tokenizers(saved, base)
        before = measured_score(base, Plan.whole(base.depth), sample, progress)
        after = measured_score(saved, Plan.whole(saved.depth), sample, progress)
        requirements.append(_cost(LossIncrease.of(after, before), max_cost, sample.tokens))
    if keep:
        keys = tuple(dict.fromkeys(keep))
        before_skills = profile(base, skills=keys, progress=progress)
        after_skills = profile(saved, skills=keys, progress=progress)
        for change in compare_skills(before_skills, after_skills):
            reason = ""
            if change.verdict == "at chance":
                reason = "The base itself isn't above chance, so this can't be checked."
            elif change.verdict not in _KEEPING:
                reason = (
                    f"It is {change.verdict}: the margin changed by {change.margin.mean:+.2f} nats."
                )
            measured = f"{change.base.accuracy:.0%} → {change.patient.accuracy:.0%}"
            name = SKILLS[change.skill.key].label
            requirements.append(Requirement(name, "kept", measured, not reason, reason))
    return requirements


def _cost(cost: LossIncrease, limit: float, tokens: int) -> Requirement:
    measured = f"{cost.mean:+.3f} ({cost.low:+.3f} to {cost.high:+.3f})"
    reason = ""
    if not all(map(math.isfinite, (cost.mean, cost.low, cost.high))):
        reason = "A loss isn't a finite number: the base or the saved model is broken."
    elif cost.high > limit:
        reason = "It costs more than that."
        if cost.mean <= limit:
            reason = (
                f"It may cost more: {tokens:,} tokens are too few to tell. Check on more of them "
                "with --limit or --text."
            )
    return Requirement("cost, nats per token", f"≤ {limit:g}", measured, not reason, reason)


def _check_tokenizers(saved: Base, base: Base) -> None:
    text = "The 3 naïve cats’ “tails” — 1,024 of them.\n\tEnd."
    one, other = (model.tokenizer(text)["input_ids"] for model in (saved, base))
    if one != other:
        raise SaveError(
            f"{saved.name} and {base.name} turn text into different tokens, so their losses can't "
            "be compared. Name the base that it was made from."
        )
