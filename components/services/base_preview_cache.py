"""How a base looked when it was last opened: enough to draw its layers before it is opened again.

Knows three facts a base, kept in the user's cache, and the config file that they were read from:
once that has changed they are not recalled. Whoever draws from them opens the base all the same,
and draws again if it turns out otherwise. Not for public pages: they keep nothing.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.io.cache_file import whole_file

from . import public_storage

if TYPE_CHECKING:
    from surgery import Base

_KEPT = 20  # bases


@dataclass(frozen=True)
class Look:
    """As much of a base as a strip draws."""

    name: str
    depth: int
    kinds: tuple[str, ...]


def recall(spec: str) -> Look | None:
    """How the base called `spec` looked, unless that isn't known or can't be right any more."""
    try:
        found = _read()[spec]
        if found["file"] != _mark(Path(found["file"][0])):
            return None
        name, depth, kinds = (found["look"][key] for key in ("name", "depth", "kinds"))
        if not (isinstance(name, str) and type(depth) is int and depth == len(kinds)):
            return None
        return Look(name, depth, tuple(map(str, kinds)))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def remember(spec: str, base: Base) -> None:
    """Keep how it looks; where nothing can be kept, the next start is a little slower."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        if base.source.home is None:
            return
        mark = _mark(base.source.home / "config.json")
        look = asdict(Look(base.name, base.depth, base.kinds))
        known = _read()
        entry = json.loads(json.dumps({"file": mark, "look": look}))
        if known.get(spec) == entry:
            return
        known.pop(spec, None)
        known[spec] = entry
        _write(dict(list(known.items())[-_KEPT:]))


def _mark(config: Path) -> list:
    """Another one once the file is another."""
    stat = config.stat()
    return [str(config), stat.st_size, stat.st_mtime_ns]


def _place() -> Path:
    return public_storage.own_cache() / "looks.json"


def _read() -> dict:
    try:
        known = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(known: dict) -> None:
    with whole_file(_place()) as file:
        file.write(json.dumps(known).encode())
