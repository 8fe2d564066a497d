"""Folders that belong to a running process: a lock held in each tells it from one left behind.

A process id does not: ids are used again, at once where an app starts anew in a container, and two
containers may share a disk. The system lets go of a lock when its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "lock"


def own(folder: Path) -> FileLock | None:
    """Hold `folder` until the lock is released or the process ends; None if somebody else does."""
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


@contextlib.contextmanager
def left_behind(folder: Path) -> Iterator[bool]:
    """Whether no living process holds `folder`. Within the block none takes it either."""
    lock = own(folder)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()
