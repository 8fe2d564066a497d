"""What the skill board draws: a row for each skill, and how much text repeats itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from components.widgets.colours import BASE, GAINED, HEALED, KEPT, LOST, PATIENT, WEAKER
from components.widgets.html_component import LiveHTML
from components.widgets.page_plan import made_of
from surgery.operation import Operation
from surgery.skills.registry import FEWEST, ITEMS, SKILLS, items_of

if TYPE_CHECKING:
    from surgery.skills import Change, SkillChange, SkillResults

_COLOURS = {"lost": LOST, "weaker": WEAKER, "kept": KEPT, "gained": GAINED, "at chance": ""}
_MEANINGS = (
    "Weaker: fewer right, or less sure of what is right. Lost: moreover, no longer clearly better "
    "than guessing. At chance: the base isn’t either, so there is nothing to lose."
)
_ABOVE = "above chance"  # of a base that is probed alone


class SkillBoard(LiveHTML):
    """The value is what `view` returns."""

    stem = "skills"


def view(
    name: str, operation: Operation, results: SkillResults, order: Sequence[str] = tuple(SKILLS)
) -> dict:
    """The results so far of the base called `name` and an operation's patient, in an `order` of
    skills. Skills without a result have a row, too."""
    alone = is_alone(operation)
    changes = {change.skill.key: change for change in results.changes}
    rows = [_row(key, changes.get(key), alone) for key in order]
    return {
        "of": made_of(operation),
        "title": f"Skills of {name}" if alone else f"Skills of {name} after the plan {operation}",
        "patient": "" if alone else operation.healed.word if operation.healed else "patient",
        "colours": {"base": BASE, "patient": HEALED if operation.healed else PATIENT},
        "counts": _counts(rows),
        "rows": rows,
        "texts": _texts(results, alone),
        "so_far": _so_far(results),
        "note": _note(results, alone),
    }


def is_alone(operation: Operation) -> bool:
    """Whether the patient is the base itself."""
    return operation.plan.is_whole and operation.healed is None


def sorted_keys(results: SkillResults) -> list[str]:
    """The keys of the skills: the worst verdict first, then the largest fall."""
    from surgery.skills import VERDICTS

    def rank(change: SkillChange) -> tuple:
        fall = change.accuracy.mean
        return VERDICTS.index(change.verdict), fall if math.isfinite(fall) else -math.inf

    return [change.skill.key for change in sorted(results.changes, key=rank)]


def words(operation: Operation, results: SkillResults) -> str:
    """The results in a few words, as for the Log."""
    from surgery.skills import counted

    if is_alone(operation):
        above = sum(change.base.beats_chance for change in results.changes)
        counts = f"{above} of {len(results.changes)} {_ABOVE}"
    else:
        counts = counted(results.changes)
    return f"{counts} ({results.items} items each)"


def _row(key: str, change: SkillChange | None, alone: bool) -> dict:
    skill, example = SKILLS[key], _example(key)
    row = {
        "key": key,
        "label": skill.label,
        "hint": skill.hint,
        "example": example,
        "chance": 1 / (1 + len(example["wrong"])),
        "verdict": "",
    }
    if change is None:
        return row
    base, patient, fall = change.base, change.patient, change.accuracy
    row |= {
        "items": len(base.margins),
        "base": base.accuracy,
        "base_interval": list(base.interval),
        "verdict": _verdict(change, alone),
        "colour": KEPT if alone and base.beats_chance else _COLOURS[change.verdict],
    }
    if alone:
        low, high = base.interval
        return row | {"low": low, "high": high, "why": "" if base.beats_chance else "guessing"}
    return row | {
        "patient": patient.accuracy,
        # The change's interval, paired over the items, from where the base is.
        "low": min(1.0, max(0.0, base.accuracy + fall.low)),
        "high": min(1.0, max(0.0, base.accuracy + fall.high)),
        "why": _why(change),
        "accuracy_change": _interval(fall, 100, "points", 0),
        "margin_change": _interval(change.margin, 1, "nats", 2),
    }


@cache
def _example(key: str) -> dict:
    """The shortest of a few items."""
    item = min(items_of(key, FEWEST), key=lambda item: len(item.prompt))
    return {"prompt": item.prompt, "right": item.right, "wrong": list(item.wrong)}


def _verdict(change: SkillChange, alone: bool) -> str:
    return _ABOVE if alone and change.base.beats_chance else change.verdict


def _why(change: SkillChange) -> str:
    """What the verdict rests on."""
    if change.verdict == "at chance":
        return "base guesses"
    if change.verdict == "lost":
        return "now guessing" if math.isfinite(change.margin.mean) else "output isn’t a number"
    if change.verdict == "weaker":
        return "fewer right" if change.accuracy.high < 0 else "less sure"
    return "surer" if change.verdict == "gained" else "no change found"


def _interval(change: Change, scale: float, unit: str, decimals: int) -> str:
    if not math.isfinite(change.mean):
        return "not finite"
    mean, low, high = (
        f"{scale * value:+.{decimals}f}".replace("-", "−")
        for value in (change.mean, change.low, change.high)
    )
    return f"{mean} {unit} ({low} to {high})"


def _counts(rows: Sequence[dict]) -> list[dict]:
    """How many skills have each verdict, worst first."""
    counted = {
        verdict: [row for row in rows if row["verdict"] == verdict]
        for verdict in (_ABOVE, *_COLOURS)
    }
    return [
        {"verdict": verdict, "count": len(some), "colour": some[0]["colour"]}
        for verdict, some in counted.items()
        if some
    ]


def _texts(results: SkillResults, alone: bool) -> dict | None:
    """The shares of repeated 4-grams."""
    if results.texts is None:
        return None
    base, patient = (one.mean for one in results.texts)
    return {"base": base} if alone else {"base": base, "patient": patient}


def _so_far(results: SkillResults) -> str:
    """What the verdicts rest on while there will be more; empty at the end."""
    counts = [len(change.base.margins) for change in results.changes]
    if results.is_final or not counts or min(counts) >= ITEMS:
        return ""
    return f"so far, on {_range(counts)} of {ITEMS} items each: verdicts may still change"


def _note(results: SkillResults, alone: bool) -> str:
    """How much the picture rests on, and what its words mean."""
    counts = [len(change.base.margins) for change in results.changes]
    if not counts:
        return ""
    said = f"{_range(counts)} generated items of each skill"
    return f"{said}." if alone else f"{said}, the same for both models. {_MEANINGS}"


def _range(counts: Sequence[int]) -> str:
    fewest, most = min(counts), max(counts)
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"
