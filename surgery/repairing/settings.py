"""Methods of repair, and what a repair is asked for. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from surgery.errors import SurgeryError
from surgery.texts.default_text import MIXED

#: {method: what it does, in one line for help and the page}
METHODS = {
    "refit": "fits outputs of attention and MLP to the base's hidden states, layer by layer",
    "lstsq": "fits the last output projection before the seam, that of the MLP (ReplaceMe)",
    "alpha": "matches the scale of the hidden states after the seam (Prune&Comp)",
    "damped": "scales each of the K copies of a repeated layer by 1/K",
}
TOKENS = 12_288  # of calibration text, by default
MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class RepairSettings:
    """`text` is "mixed", "own" (the base writes it), "python" (source of Python's library), a file,
    or a data set on the Hub as data:org/name. `held_out` is a file that the result is measured on;
    by default the project's own texts. Raises `SurgeryError` for values that make no sense.
    """

    method: str = "refit"
    text: str = MIXED
    tokens: int = TOKENS
    held_out: str = ""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SurgeryError(
                f"There is no repair “{self.method[:40]}”: the methods are {', '.join(METHODS)}."
            )
        if not 1 <= self.tokens <= MOST_TOKENS:
            raise SurgeryError(f"A repair takes 1 to {MOST_TOKENS:,} tokens of text.")
