"""Texts to measure on, from this machine or from data sets on the Hub.

Documents of four kinds were written for this project, and Python brings two more kinds: its
documentation and the source of its library. The kinds differ, so that scores on one can be compared
with the others. They need no network. Each kind is split by document into two halves: one to choose
a plan on, and one to judge it on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from surgery.errors import SurgeryError

from . import python_docs, python_library
from .dataset import check_name, from_dataset

__all__ = ["DEFAULT", "KINDS", "TEXTS", "Half", "check_name", "documents", "from_dataset", "get"]

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
_OF_PYTHON = {"python-docs": python_docs.documents, "python-library": python_library.documents}

#: {kind: its short text to choose on} of the kinds that were written for this project.
TEXTS: dict[str, str] = {
    kind: (_HERE / kind / f"{name}.txt").read_text(encoding="utf-8").strip()
    for kind, name in _SHORT.items()
}
#: All kinds: {name: where they are from}.
KINDS: dict[str, str] = {
    **dict.fromkeys(TEXTS, "written for this project"),
    **dict.fromkeys(_OF_PYTHON, "part of Python"),
}


def get(kind: str, half: Half = "choose") -> str:
    """The short text of a kind in `KINDS`, of some 500 to 700 tokens: the first document of the
    half to choose a plan on, or of the one to judge it on. Raises `SurgeryError` if there is no
    such kind, or this Python comes without it."""
    return TEXTS[kind] if half == "choose" and kind in TEXTS else documents(kind, half)[0]


@cache
def documents(kind: str, half: Half | None = None) -> tuple[str, ...]:
    """The documents of a kind in `KINDS`, all of them or those of one half, which has 4,000 tokens
    or more. Every other document belongs to the same half, and the first of a half is its short
    text. Raises `SurgeryError` if there is no such kind, or this Python comes without it."""
    if kind in _OF_PYTHON:
        everything = _OF_PYTHON[kind]()
    elif kind in _SHORT:
        files = sorted((_HERE / kind).glob("*.txt"), key=lambda path: path.stem)
        others = [f.read_text(encoding="utf-8").strip() for f in files if f.stem != _SHORT[kind]]
        everything = (TEXTS[kind], *others)
    else:
        raise SurgeryError(f"There is no text “{kind[:40]}”: choose one of {', '.join(KINDS)}.")
    return everything if half is None else everything[half == "judge" :: 2]
