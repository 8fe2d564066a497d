"""Mark folders as owned by a running process with a lock file, so that leftovers can be removed.

Process ids would not do: they are reused, immediately when an app restarts in a container, and two
containers may share a disk. The system releases a lock when its process ends for any reason.
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
_BEGINNING = 3600  # seconds; locking a new folder takes microseconds


def own(folder: Path, inner: str) -> FileLock:
    """Create and lock `folder`, then create the folder `inner` in it. Other processes check whether
    `folder` is a leftover only after `inner` exists (or after an hour)."""
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / LOCK, thread_local=False)
    lock.acquire(timeout=0)
    (folder / inner).mkdir()
    return lock


@contextlib.contextmanager
def left_behind(folder: Path, inner: Iterable[str]) -> Iterator[bool]:
    """Yield whether no living process owns `folder`. If so, it stays locked during the block.

    `inner` are the folders whose presence shows that its owner has locked it.
    """
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
    """Create a temporary folder; returns it and a function that removes it, to be called when the
    process ends. Folders of killed processes are removed first."""
    place = Path(tempfile.gettempdir())
    for folder in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if not folder.is_symlink() and (folder / LOCK).is_file():
                _remove_left(folder)
    outer = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    try:
        lock = own(outer, _INNER)
    except BaseException:  # without a lock nobody would remove it
        shutil.rmtree(outer, ignore_errors=True)
        raise

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
