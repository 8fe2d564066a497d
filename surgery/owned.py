"""Folders that belong to a running process: a lock held in each tells it from one left behind.

A process id does not: ids are used again, at once where an app starts anew in a container, and two
containers may share a disk. The system lets go of a lock when its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "lock"
_INNER = "files"
_BEGINNING = 3600  # seconds; between making a folder and holding it lie microseconds


def own(folder: Path, inner: str) -> FileLock:
    """Make `folder`, hold it until the lock is released or the process ends, and make the folder
    `inner` in it: only once that is there does anybody ask whether it was left behind."""
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / LOCK, thread_local=False)
    lock.acquire(timeout=0)
    (folder / inner).mkdir()
    return lock


@contextlib.contextmanager
def left_behind(folder: Path, inner: Iterable[str]) -> Iterator[bool]:
    """Whether no living process holds `folder`, which has one of the folders `inner` once it is
    held. Within the block none takes it either."""
    begun = any((folder / name).exists() for name in inner)
    lock = None
    if begun or time.time() - folder.stat().st_mtime > _BEGINNING:
        lock = FileLock(folder / LOCK, thread_local=False)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
    try:
        yield lock is not None and lock.is_locked
    finally:
        if lock is not None:
            lock.release()


def temporary(prefix: str) -> tuple[Path, Callable[[], None]]:
    """A new temporary folder, and a function that removes it, to be called when the process ends.
    Where one was killed first, its folder goes now."""
    place = Path(tempfile.gettempdir())
    for folder in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if not folder.is_symlink() and (folder / LOCK).is_file():
                _remove_left(folder)
    outer = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    lock = own(outer, _INNER)

    def remove() -> None:
        shutil.rmtree(outer / _INNER, ignore_errors=True)
        lock.release()
        shutil.rmtree(outer, ignore_errors=True)

    return outer / _INNER, remove


def _remove_left(folder: Path) -> None:
    with left_behind(folder, [_INNER]) as free:
        if free:
            shutil.rmtree(folder / _INNER, ignore_errors=True)
    if free:
        shutil.rmtree(folder, ignore_errors=True)
