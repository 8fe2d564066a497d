"""Source code of Python's own library, as text: it is on every machine and needs no network."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from surgery.errors import SurgeryError

_SEED = 0
_SHORTEST, _LONGEST = 1500, 2500  # characters of a document


def files() -> list[Path]:
    """Its source files; none in a Python that comes without them."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def documents() -> tuple[str, ...]:
    """The files that are long enough, in the order of their names: the beginning of each. Raises
    `SurgeryError` in a Python that comes without them."""
    texts = (path.read_text(encoding="utf-8", errors="ignore").strip() for path in files())
    found = tuple(text[:_LONGEST] for text in texts if len(text) >= _SHORTEST)
    if not found:
        raise SurgeryError(
            "This Python comes without the source of its library: choose another text, such as "
            "code."
        )
    return found


def pieces(size: int) -> Iterator[str]:
    """Pieces of source files, of `size` characters or a little less, in an order that is always the
    same, without end. They hold code and, in docstrings and comments, prose. Raises `SurgeryError`
    if there are none."""
    order = random.Random(_SEED)
    large = [path for path in files() if path.stat().st_size >= size]
    if not large:
        raise SurgeryError(
            "This Python comes without the source of its library: choose another text, such as own."
        )
    while True:
        order.shuffle(large)
        for path in large:
            text = path.read_text(encoding="utf-8", errors="ignore")
            start = order.randrange(max(1, len(text) - size))
            yield text[start : start + size]
