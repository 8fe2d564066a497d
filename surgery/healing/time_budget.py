"""How the minutes of a run are divided: looks at held-out text, the base's own text, steps.

Pure arithmetic of settings and of seconds that were measured; turning what is left into steps is
for the run, which knows how long one takes.
"""

from __future__ import annotations

from .settings import Settings

_LOOKS = 10  # in a run, after the first one
_LOOKING = 0.1  # share of the minutes at most, so that short runs look less often
_WRITING = 0.55  # of what is then left: a token is written somewhat slower than learnt


def looks(settings: Settings, each: float) -> int:
    """How often a run looks at held-out text after its first look, which took `each` seconds (0:
    not known)."""
    if settings.minutes is None or not each:
        return _LOOKS
    return max(1, min(_LOOKS, int(60 * settings.minutes * _LOOKING / each)))


def left(settings: Settings, spent: float, each: float) -> float:
    """Seconds that are neither `spent` nor kept for looks and for the verdict at the end."""
    return 60 * (settings.minutes or 0) - spent - (looks(settings, each) + 1) * each


def training_share(settings: Settings) -> float:
    """Share of a run's minutes, looks aside, that steps take."""
    return 1 - _WRITING if settings.writes_in_time else 1.0


def writing(settings: Settings, spent: float, each: float) -> float | None:
    """Seconds for the base to write text in; None if the settings say how much it writes, or it
    doesn't."""
    if not settings.writes_in_time:
        return None
    return _WRITING * max(0.0, left(settings, spent, each))
