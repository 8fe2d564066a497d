"""The cache of merged weights, which take as much room as their base.

Each merge removes those of the same folders from before their files changed, and all that haven't
been used for 30 days. If they are needed again, they are merged again.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from surgery.io.atomic import remove_folder
from surgery.io.cache_folder import cache_folder, short_hash
from surgery.progress import Progress
from surgery.sources.cache import once

_VERSION = 1  # of the merge; weights of another one are merged again
_UNUSED = 30 * 86400  # seconds
_NAME = re.compile(r"(.+-[0-9a-f]{8})-[0-9a-f]{12}")  # (which folders)-which state of their files


def folder_of(name: str, place: str, identity: str) -> Path:
    """Where the merged weights called `name` are cached. `place` identifies the folders of base and
    adapter, `identity` the state of their files."""
    stem = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:80]
    version = short_hash(f"{_VERSION}:{identity}", 12)
    return cache_folder() / "merged" / f"{stem}-{short_hash(place, 8)}-{version}"


def kept(
    folder: Path, size: int, build: Callable[[Path, Progress], None], progress: Progress
) -> Path:
    """Return one of these folders, built by `once` if needed. Raises `SurgeryError`."""
    if folder.is_dir():
        with contextlib.suppress(OSError):  # a cache that can only be read
            os.utime(folder)
        return folder
    once(folder, size, build, progress)
    _remove_others(folder)
    return folder


def _remove_others(folder: Path) -> None:
    mine = _NAME.fullmatch(folder.name)
    for other in folder.parent.iterdir():
        name = _NAME.fullmatch(other.name)
        if not name or other == folder or not other.is_dir() or other.is_symlink():
            continue
        with contextlib.suppress(OSError):  # removed by another process, or open on Windows
            changed = mine is not None and name[1] == mine[1]
            if changed or time.time() - other.stat().st_mtime > _UNUSED:
                remove_folder(other)
