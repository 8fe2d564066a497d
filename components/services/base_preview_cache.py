"""A cache of what the layer strip shows of a base, to draw it before the base is opened again.

Three facts for each base are kept in the user's cache folder with the config file that they were
read from; once that has changed they are not recalled. The page opens the base all the same, and
draws it again if it turns out otherwise. Public pages don't use it: they keep nothing.
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
class BasePreview:
    """What the layer strip shows of a base."""

    name: str
    depth: int
    kinds: tuple[str, ...]


def recall(spec: str) -> BasePreview | None:
    """Return the preview of the base called `spec`, unless it is unknown or outdated."""
    try:
        entry = _read()[spec]
        if entry["file"] != _mark(Path(entry["file"][0])):
            return None
        name, depth, kinds = (entry["look"][key] for key in ("name", "depth", "kinds"))
        if not (isinstance(name, str) and type(depth) is int and depth == len(kinds)):
            return None
        return BasePreview(name, depth, tuple(map(str, kinds)))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def remember(spec: str, base: Base) -> None:
    """Keep a base's preview. Errors are ignored: the next start is a little slower then."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        if base.source.home is None:
            return
        mark = _mark(base.source.home / "config.json")
        preview = asdict(BasePreview(base.name, base.depth, base.kinds))
        known = _read()
        entry = json.loads(json.dumps({"file": mark, "look": preview}))
        if known.get(spec) == entry:
            return
        known.pop(spec, None)
        known[spec] = entry
        _write(dict(list(known.items())[-_KEPT:]))


def _mark(config: Path) -> list:
    """Path, size and time: different once the file has changed."""
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
