"""Build cached models once, however many threads and processes ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from surgery.errors import BaseError
from surgery.io.atomic import atomic_folder
from surgery.progress import Progress, Turn

_LONGEST = 3600.0  # seconds to wait for another process, which may hang
_turns: WeakValueDictionary[Path, Turn] = WeakValueDictionary()  # of this process, by folder


def once(
    folder: Path, size: int, build: Callable[[Path, Progress], None], progress: Progress
) -> Path:
    """Return `folder`, building it if needed. Concurrent callers wait, and see the progress.

    `build(partial, progress)` fills a folder that is renamed when it is complete. `size` is the
    disk space needed, in bytes. Raises `SurgeryError`.
    """
    if folder.is_dir():
        return folder
    turn = _turns.setdefault(folder, Turn("Preparing this model"))
    with turn.taken(progress) as report:
        lock = _locked(folder, report)
        try:
            if not folder.is_dir():
                with atomic_folder(folder, size) as partial:
                    build(partial, report)
            return folder
        finally:
            lock.release()


def _locked(folder: Path, progress: Progress) -> FileLock:
    """Acquire the lock that keeps other processes from building `folder`."""
    since = time.monotonic()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        while True:
            try:
                lock.acquire(timeout=0.3)
                return lock
            except Timeout:
                progress("Waiting for another process to prepare this model", 0, 0)
            if time.monotonic() - since > _LONGEST:
                raise BaseError(
                    "Another process has been preparing this model for an hour. Stop that process, "
                    "then try again."
                )
    except OSError as error:
        raise BaseError(
            f"The cache folder {folder.parent} can't be written to ({error.strerror or error}). "
            "Set LAYER_SURGERY_CACHE to a folder that can."
        ) from error
