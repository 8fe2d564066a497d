"""How much of a model's greedy text repeats itself: a model that was cut too deep often loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surgery.errors import SurgeryError
from surgery.patient import Patient
from surgery.progress import Meter, Progress, silent

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
