"""Texts to measure on: four written for this project, and data sets on the Hub.

The four are of different kinds, so that scores on one can be compared with the others. They are
under this project's licence and need no network.
"""

from __future__ import annotations

from pathlib import Path

from surgery.errors import SurgeryError

from .dataset import check_name, from_dataset

__all__ = ["DEFAULT", "TEXTS", "check_name", "from_dataset", "get"]

DEFAULT = "prose"
_HERE = Path(__file__).parent

#: {kind: text}, each of 500 to 700 tokens.
TEXTS: dict[str, str] = {
    kind: (_HERE / f"{kind}.txt").read_text(encoding="utf-8").strip()
    for kind in ("prose", "code", "facts", "dialogue")
}


def get(name: str) -> str:
    """The text of a kind. Raises `SurgeryError` if there is none."""
    if name not in TEXTS:
        raise SurgeryError(f"There is no text “{name[:40]}”: choose one of {', '.join(TEXTS)}.")
    return TEXTS[name]
