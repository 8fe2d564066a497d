"""Write small cache files atomically."""

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
_STALE = 3600  # seconds; writing one takes far less
_swept: set[Path] = set()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to `path` if the block succeeds, and removed otherwise.
    Its folder is created if needed. Raises `OSError`."""
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
    """Remove partial files of killed processes, once per folder."""
    if folder in _swept:
        return
    _swept.add(folder)
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if _PARTIAL.fullmatch(path.name) and time.time() - path.stat().st_mtime > _STALE:
                path.unlink()
