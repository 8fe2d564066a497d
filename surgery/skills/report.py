"""Skills of base and patient as plain values, for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from surgery.io.finite_json import plain
from surgery.plan import Plan

if TYPE_CHECKING:
    from surgery.base import Base

    from .changes import SkillChange
    from .profiles import SkillScore
    from .repetition import Repetition


def skills_json(
    base: Base,
    plan: Plan,
    changes: Sequence[SkillChange],
    texts: Sequence[Repetition] | None,
    *,
    items: int,
    seed: int,
) -> dict:
    """Accuracies and margins by skill; intervals are at 95 %. `texts` are of base and patient, None
    if none were generated."""
    return plain(
        {
            "base": base.name,
            "plan": str(plan),
            "items": items,
            "seed": seed,
            "skills": {
                change.skill.key: {
                    "chance": change.base.chance,
                    "base": _score(change.base),
                    "patient": _score(change.patient),
                    "margin_change": asdict(change.margin),
                    "accuracy_change": asdict(change.accuracy),
                    "verdict": change.verdict,
                }
                for change in changes
            },
            "repeated_4_grams": texts and {"base": texts[0].mean, "patient": texts[1].mean},
        }
    )


def _score(score: SkillScore) -> dict:
    low, high = score.interval
    return {"accuracy": score.accuracy, "low": low, "high": high, "margin": score.mean}
