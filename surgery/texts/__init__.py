"""Texts to measure on: documents of four kinds, written for this project, and data sets on the Hub.

The kinds differ, so that scores on one can be compared with the others. They are under this
project's licence and need no network. Each kind is split by document into two halves that have
nothing in common: one to choose a plan on, and one to judge it on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from surgery.errors import SurgeryError

from .dataset import check_name, from_dataset

__all__ = ["DEFAULT", "TEXTS", "Half", "check_name", "documents", "from_dataset", "get"]

Half = Literal["choose", "judge"]

DEFAULT = "prose"
_HERE = Path(__file__).parent
# The document of each kind that is measured where an answer has to come fast.
_SHORT = {
    "prose": "island-ferry",
    "code": "word-counter",
    "facts": "water-and-earth",
    "dialogue": "used-bicycle",
}

#: {kind: its short text}, of 500 to 700 tokens. It belongs to the half to choose on.
TEXTS: dict[str, str] = {
    kind: (_HERE / kind / f"{name}.txt").read_text(encoding="utf-8").strip()
    for kind, name in _SHORT.items()
}


def get(name: str) -> str:
    """The short text of a kind. Raises `SurgeryError` if there is none."""
    if name not in TEXTS:
        raise SurgeryError(f"There is no text “{name[:40]}”: choose one of {', '.join(TEXTS)}.")
    return TEXTS[name]


@cache
def documents(kind: str, half: Half | None = None) -> tuple[str, ...]:
    """The documents of a kind, or those of one half: 4,000 tokens or more. The first document to
    choose on is the short text. Raises `SurgeryError` if there is no such kind."""
    short = get(kind)
    files = sorted((_HERE / kind).glob("*.txt"), key=lambda path: path.stem)
    others = [f.read_text(encoding="utf-8").strip() for f in files if f.stem != _SHORT[kind]]
    everything = (short, *others)
    return everything if half is None else everything[half == "judge" :: 2]
