"""Small files that are written whole or not at all: what is kept for the next time."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)
_STALE = 3600  # seconds; each takes far less to write
_swept: set[Path] = set()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the name `path` when the block ends well, and else is removed. Its folder
    is made if need be. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(partial, "xb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sweep(folder: Path) -> None:
    """Once for each folder, remove what killed processes left half written."""
    if folder in _swept:
        return
    _swept.add(folder)
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if _PARTIAL.fullmatch(path.name) and time.time() - path.stat().st_mtime > _STALE:
                path.unlink()
