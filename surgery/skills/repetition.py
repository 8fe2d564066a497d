"""How much of a model's greedy text repeats itself: a model that was cut too deep often loops."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.analysis.comparison import patient_of
from surgery.errors import SurgeryError
from surgery.patient import Patient
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .cache import MarginCache

if TYPE_CHECKING:
    from surgery.base import Base

PROMPTS = (
    "The old house at the end of the street",
    "Water boils when",
    "My sister called me yesterday because",
    "The most important thing about cooking rice is",
    "In the year 1850, most people in the country",
    "Once upon a time there was a small",
)
TOKENS = 48
_N = 4  # tokens of an n-gram
_NAME = f"repetition-{hashlib.sha256(repr((PROMPTS, TOKENS, _N)).encode()).hexdigest()[:24]}"


@dataclass(frozen=True)
class Repetition:
    """The share of 4-grams of tokens that occurred before in the same text, for each prompt. None
    for a text that has none, as where the model ends at once or its output is not a number."""

    shares: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """The mean over the texts that have one; None if there is none."""
        known = [share for share in self.shares if share is not None]
        return sum(known) / len(known) if known else None


def measured_repetition(
    base: Base,
    of: Plan | Patient,
    progress: Progress = silent,
    cache: MarginCache | None = None,
) -> Repetition:
    """Like `repetition_of`, for a plan's patient or one given, unless the result is in the `cache`:
    by default that of the plan; a patient that is given has none. Raises `SurgeryError`."""
    if cache is None:
        cache = MarginCache.of(base, of, progress) if isinstance(of, Plan) else MarginCache()
    if known := cache.get(_NAME):
        return Repetition(tuple(None if math.isnan(share) else share for share in known))
    base.load(progress)
    result = repetition_of(patient_of(base, of), progress)
    cache.put(_NAME, [math.nan if share is None else share for share in result.shares])
    return result


def is_known(cache: MarginCache) -> bool:
    """Whether the result of `measured_repetition` is in a cache."""
    return bool(cache.get(_NAME))


def repetition_of(patient: Patient, progress: Progress = silent) -> Repetition:
    """Generate greedy text after each of `PROMPTS`, and count what repeats.

    `progress` counts pieces of text and may raise.
    """
    meter = Meter(progress, "Generating text", len(PROMPTS) * TOKENS)
    shares = []
    for prompt in PROMPTS:
        stream = patient.stream(prompt, max_new_tokens=TOKENS, greedy=True)
        try:
            for _ in stream:
                meter.add(1)
        except SurgeryError:  # what came before it is counted
            pass
        shares.append(repeated(stream.ids))
    return Repetition(tuple(shares))


def repeated(ids: Sequence[int]) -> float | None:
    """The share of 4-grams that occurred before; None if there are no 4-grams."""
    grams = [tuple(ids[i : i + _N]) for i in range(len(ids) - _N + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None
