"""Texts to measure with: four that were written for this project, and data sets on the Hub.

The four are of several kinds, so that a score of one kind can be held against the others; they are
under this project's licence and need no network. Knows texts; tokens are `xray.sample`'s affair.
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
    """The text of a kind. Raises `SurgeryError` for one that isn't there."""
    if name not in TEXTS:
        raise SurgeryError(f"There is no text “{name[:40]}” here: {', '.join(TEXTS)} are.")
    return TEXTS[name]
