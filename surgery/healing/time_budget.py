"""How a run's minutes are divided between evaluations, writing text, and steps.

Pure arithmetic of the settings and of measured seconds.
"""

from __future__ import annotations

from surgery.texts.default_text import MIXED, OWN

from .settings import Settings

_EVALUATIONS = 10  # in a run, after the first one
_EVALUATING = 0.1  # largest share of the minutes, so that short runs evaluate less often
# Share of the rest, by the kind of text: writing a token takes about as long as training on it.
_WRITING = {OWN: 0.55, MIXED: 0.35}


def evaluations(settings: Settings, each: float) -> int:
    """Number of evaluations after the first one, which took `each` seconds (0: unknown)."""
    if settings.minutes is None or not each:
        return _EVALUATIONS
    return max(1, min(_EVALUATIONS, int(60 * settings.minutes * _EVALUATING / each)))


def left(settings: Settings, spent: float, each: float) -> float:
    """Seconds that are neither `spent` nor reserved for evaluations, the final one included."""
    return 60 * (settings.minutes or 0) - spent - (evaluations(settings, each) + 1) * each


def training_share(settings: Settings) -> float:
    """Share of a run's minutes, evaluations aside, that steps take."""
    return 1 - _writing_share(settings)


def writing(settings: Settings, spent: float, each: float) -> float | None:
    """Seconds for the base to write text; None if the settings give the amount, or it doesn't
    write."""
    if not settings.writes_in_time:
        return None
    return _writing_share(settings) * max(0.0, left(settings, spent, each))


def _writing_share(settings: Settings) -> float:
    return _WRITING[settings.default_text] if settings.writes_in_time else 0.0
