"""Check a saved model against limits: what it may cost, and which skills and scores it keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from surgery.analysis import LossIncrease, Sample, measured_score
from surgery.errors import SaveError, SurgeryError
from surgery.numbers import percent
from surgery.plan import Plan
from surgery.progress import Progress, silent
from surgery.skills import SKILLS, compare_skills, profile

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.harness import Result

MAX_DROP = 0.02  # of a task's metric, by default
_KEEPING = ("kept", "gained")


@dataclass(frozen=True)
class Requirement:
    """One limit, what was measured, and whether the model passes. `name`, `limit` and `measured`
    are in words, for people; `reason` says why it fails, and is empty if it passes."""

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
    tasks: Sequence[str] = (),
    max_drop: float = MAX_DROP,
    task_options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> list[Requirement]:
    """Check a saved model, opened as a base of its own, against the base that it was made from.

    `max_cost` is in nats per token over the base's loss on the `sample`, which is made for the
    base and needed for this alone: the whole 95 % interval has to lie at or below it. `keep` are
    keys of `SKILLS`: the base has to be above chance, and no loss may show. `tasks` are those of
    lm-eval, and `task_options` keywords of `harness.evaluate`: no metric may get worse by more
    than `max_drop`, its whole interval included. Returns a requirement for the cost, for each
    skill, and for each metric. Raises `SurgeryError`; `SaveError` if the two don't read text alike.
    """
    requirements = []
    if max_cost is not None and not math.isfinite(max_cost):
        raise SurgeryError("The highest cost has to be a number of nats per token.")
    if max_cost is not None and sample is None:
        raise SurgeryError("A highest cost takes a sample of text to measure it on.")
    if not math.isfinite(max_drop):
        raise SurgeryError("The largest drop has to be a number.")
    if unknown := [key for key in keep if key not in SKILLS]:
        raise SurgeryError(f"There is no skill “{unknown[0][:40]}”. Skills: {', '.join(SKILLS)}.")
    if max_cost is not None and sample is not None:
        cost = cost_of(saved, base, sample, progress)
        requirements.append(_cost(cost, max_cost, sample.tokens))
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
            measured = f"{percent(change.base.accuracy)} → {percent(change.patient.accuracy)}"
            name = SKILLS[change.skill.key].label
            requirements.append(Requirement(name, "kept", measured, not reason, reason))
    if tasks:
        from surgery.harness import evaluate

        results = evaluate(base, saved, tasks, **(task_options or {}))
        requirements += task_requirements(results, max_drop)
    return requirements


def task_requirements(results: Sequence[Result], max_drop: float) -> list[Requirement]:
    """One requirement for each metric that is a mean over items, whose difference has an interval;
    a task without any can't be checked, and fails."""
    requirements = []
    for task, of_task in groupby(results, key=lambda result: result.task):
        rows = [row for result in of_task if (row := _drop(result, max_drop))]
        reason = "None of its metrics is a mean over items, so it can't be checked."
        requirements += rows or [Requirement(task, f"drop ≤ {max_drop:g}", "", False, reason)]
    return requirements


def _drop(result: Result, limit: float) -> Requirement | None:
    if result.drop is None:
        return None
    (drop, margin), reason = result.drop, ""
    if not math.isfinite(drop + margin):
        reason = "A score isn't a finite number."
    elif drop > limit:
        reason = "It loses more than the limit."
    elif drop + margin > limit:
        reason = "It may lose more: there are too few items to tell."
    before, after, change = (s.value for s in (result.base, result.patient, result.difference))
    measured = f"{before:.3f} → {after:.3f} ({change:+.3f} ± {margin:.3f})"
    name = f"{result.task}, {result.metric}"
    return Requirement(name, f"drop ≤ {limit:g}", measured, not reason, reason)


def cost_of(saved: Base, base: Base, sample: Sample, progress: Progress = silent) -> LossIncrease:
    """The increase of a saved model's loss over its base's, in nats per token, on a sample made for
    the base. Raises `SurgeryError`; `SaveError` if the two don't read text alike."""
    _check_tokenizers(saved, base)
    before = measured_score(base, Plan.whole(base.depth), sample, progress)
    after = measured_score(saved, Plan.whole(saved.depth), sample, progress)
    return LossIncrease.of(after, before)


def _cost(cost: LossIncrease, limit: float, tokens: int) -> Requirement:
    measured = f"{cost.mean:+.3f} ({cost.low:+.3f} to {cost.high:+.3f})"
    reason = ""
    if not all(map(math.isfinite, (cost.mean, cost.low, cost.high))):
        reason = "A loss isn't a finite number: the base or the saved model is broken."
    elif cost.high > limit:
        reason = "It costs more than the limit."
        if cost.mean <= limit:
            reason = (
                f"It may cost more: {tokens:,} tokens are too few to tell. Check on more of them "
                "with --precision, --limit or --text."
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
