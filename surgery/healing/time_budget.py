"""How a run's minutes are divided between evaluations, writing text, and steps.

Pure arithmetic of the settings and of measured seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from surgery.texts.default_text import MIXED, OWN

from .settings import Settings

_EVALUATIONS = 10  # in a run, after the first one
_EVALUATING = 0.1  # largest share of the minutes, so that short runs evaluate less often
# Share of the rest that writing takes, by the kind of text, for estimates: a run measures it.
_WRITING = {OWN: 0.55, MIXED: 0.35}


@dataclass(frozen=True)
class Writing:
    """How much text the base should write, so that steps read all of it once in the `seconds` that
    are left for both.

    Steps read `rate` windows per second, one in `kinds` of them the base's own. `have` windows of
    its own text were written earlier.
    """

    seconds: float
    rate: float
    kinds: int = 1
    have: int = 0

    def windows(self, each: float) -> int:
        """How many windows to write, where one takes `each` seconds."""
        wanted = self.rate * self.seconds - self.kinds * self.have
        return max(0, int(wanted / (self.kinds + self.rate * each)))


def evaluations(settings: Settings, each: float) -> int:
    """Number of evaluations after the first one, which took `each` seconds (0: unknown)."""
    if settings.minutes is None or not each:
        return _EVALUATIONS
    return max(1, min(_EVALUATIONS, int(60 * settings.minutes * _EVALUATING / each)))


def evaluates(settings: Settings, step: int, steps: int, each: float) -> bool:
    """Is the patient evaluated after this step of so many? At even distances, the last of which
    ends with the run."""
    count = evaluations(settings, each)
    return step * count // steps > (step - 1) * count // steps


def left(settings: Settings, spent: float, each: float) -> float:
    """Seconds that are neither `spent` nor reserved for evaluations, the final one included."""
    return 60 * (settings.minutes or 0) - spent - (evaluations(settings, each) + 1) * each


def training_share(settings: Settings, repair: float = 0.0) -> float:
    """Share of a run's minutes, evaluations aside, that steps take: an estimate. `repair` is the
    share of a repair before; its text is read again, so none is written."""
    writes = settings.writes_in_time and not repair
    return 1 - repair - (_WRITING[settings.default_text] if writes else 0.0)
