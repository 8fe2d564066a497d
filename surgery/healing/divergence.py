"""Detects a run whose loss diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence

from surgery.errors import SurgeryError

_STEPS = 20  # whose mean loss is compared


class Diverged(SurgeryError):
    """The loss diverged; the last good state is kept."""


def recent_loss(losses: Sequence[float]) -> float:
    """The mean of the last losses; infinite before the first."""
    recent = losses[-_STEPS:]
    return sum(recent) / len(recent) if recent else math.inf


def growth(losses: Sequence[float]) -> str | None:
    """What to say if the mean loss has grown by its first value, or by 1 nat if that is more; None
    if it hasn't."""
    if len(losses) < 2 * _STEPS:
        return None
    first, recent = recent_loss(losses[:_STEPS]), recent_loss(losses)
    if recent <= first + max(first, 1.0):
        return None
    return f"The loss grows: {first:.3g} at first, {recent:.3g} now"
