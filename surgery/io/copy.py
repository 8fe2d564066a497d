"""Copy byte ranges between files with whichever method measures fastest, and compare them.

Uses the same memory for any size.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import numpy as np

from surgery.errors import BaseError
from surgery.progress import Meter

# Bytes. A chunk is what one call to the kernel moves: between two of them a save can be stopped.
CHUNK = 8 << 20
# Small enough to stay in a core's own cache on the way from one file to the other.
BUFFER = 1 << 20
WORKERS = min(4, os.cpu_count() or 1)


class Readable(Protocol):
    """An open file to read from: a local one, or a part of a remote one."""

    @property
    def name(self) -> Any: ...
    def fileno(self) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def readinto(self, buffer: Any, /) -> int | None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: Any) -> None: ...


# (source, its offset, target, its offset, bytes wanted) -> bytes moved, 0 if it could move none
Way = Callable[[Readable, int, BinaryIO, int, int], int]


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Turn errors of reading the base into `BaseError`, to distinguish them from errors of
    writing."""
    try:
        yield
    except OSError as error:
        raise BaseError(f"{path} can't be read: {error.strerror or error}.") from error


def open_file(path: Path, start: int, end: int) -> Readable:
    """Open a local file to read bytes [start, end). Raises `BaseError`."""
    with reading(path):
        file = open(path, "rb", buffering=0)  # noqa: SIM115  the caller closes it
        file.seek(start)
        return file


def opener_of(folder: Path) -> Callable[[str, int, int], Readable]:
    """Return a function that opens bytes [start, end) of a file in `folder`."""
    return lambda file, start, end: open_file(folder / file, start, end)


def by_kernel(source: Readable, start: int, target: BinaryIO, at: int, size: int) -> int:
    """Copy within the kernel: some file systems share the blocks (XFS, Btrfs), some servers copy by
    themselves (NFS)."""
    return os.copy_file_range(source.fileno(), target.fileno(), size, start, at)


def by_buffer(source: Readable, start: int, target: BinaryIO, at: int, size: int) -> int:
    """Copy through a small buffer, which works everywhere."""
    view = memoryview(bytearray(min(BUFFER, size)))
    with reading(source.name):
        source.seek(start)
    target.seek(at)
    moved = 0
    while moved < size:
        with reading(source.name):
            count = source.readinto(view[: size - moved])
        if not count:
            raise BaseError(f"{source.name} ended early: it changed while it was read. Try again.")
        write_all(target, view[:count])
        moved += count
    return moved


WAYS: tuple[Way, ...] = (by_kernel, by_buffer) if hasattr(os, "copy_file_range") else (by_buffer,)


class Mover:
    """Moves bytes between files in the way that turns out to be the fastest for them.

    Which one is depends on the file system, so each is tried on the first chunks. One that can't
    (another file system, a source that is no file) is left out, whatever its error: the last way
    tells reading and writing apart, and its error is the one to show.
    """

    def __init__(self, ways: Iterable[Way] = WAYS, trials: int = 3) -> None:
        self.ways = list(ways)
        self.best = {way: float("inf") for way in self.ways}  # seconds per byte
        self._trials = self.ways * trials
        self._choosing = threading.Lock()

    def move(
        self, source: Readable, start: int, target: BinaryIO, at: int, size: int, meter: Meter
    ) -> None:
        """Bytes [start, start + size) of `source` to offset `at` of `target`, which is new.

        Holes stay holes: nothing is written for them, so a hole at its end leaves the file short.
        The caller has to lengthen it, once all writes are done.

        Raises `BaseError` for trouble with the source, `OSError` for trouble with the target, and
        whatever `meter` raises to stop it.
        """
        while size:
            count = min(CHUNK, size)
            if not is_hole(source, start, start + count):
                count = self._chunk(source, start, target, at, count)
            start, at, size = start + count, at + count, size - count
            meter.add(count)

    def _chunk(self, source: Readable, start: int, target: BinaryIO, at: int, size: int) -> int:
        while True:
            with self._choosing:
                way = (
                    self._trials.pop()
                    if self._trials
                    else min(self.ways, key=self.best.__getitem__)
                )
            last = way is self.ways[-1]
            begin = time.perf_counter()
            try:
                count = way(source, start, target, at, size)
            except OSError:
                if last:
                    raise
                count = 0
            if count:
                self.best[way] = min(self.best[way], (time.perf_counter() - begin) / count)
                return count
            with self._choosing:
                if way in self.ways:
                    self.ways.remove(way)
                self._trials = [other for other in self._trials if other is not way]


def write_all(target: BinaryIO, data) -> None:
    """Write all of `data`: a raw file may take only part of it at a time."""
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def equal(source: Readable, start: int, target: Readable, at: int, size: int, meter: Meter) -> bool:
    """Whether bytes [start, start + size) of `source` are those at offset `at` of `target`."""
    ours, theirs = (np.empty(min(BUFFER, size), np.uint8) for _ in range(2))
    while size:
        count = min(BUFFER, size)
        if not (is_hole(source, start, start + count) and is_hole(target, at, at + count)):
            fill(source, start, ours[:count])
            fill(target, at, theirs[:count])
            if not np.array_equal(ours[:count], theirs[:count]):
                return False
        start, at, size = start + count, at + count, size - count
        meter.add(count)
    return True


def fill(file: Readable, start: int, into) -> None:
    """Read as many bytes from offset `start` as `into` holds. Raises `BaseError`."""
    view = memoryview(into)
    with reading(file.name):
        file.seek(start)
        while view:
            count = file.readinto(view)
            if not count:
                raise BaseError(
                    f"{file.name} ended early: it changed while it was read. Try again."
                )
            view = view[count:]


def is_hole(file: Readable, start: int, end: int) -> bool:
    """Whether nothing is stored for these bytes, so that they read as zeros."""
    if not hasattr(os, "SEEK_DATA"):
        return False
    try:
        return os.lseek(file.fileno(), start, os.SEEK_DATA) >= end
    except OSError as error:  # nothing but a hole up to the file's end; or it is no file at all
        return error.errno == errno.ENXIO and os.fstat(file.fileno()).st_size >= end


def at_once(tasks: Iterable[Callable[[], None]], meter: Meter, workers: int = WORKERS) -> None:
    """Run tasks, several at a time. The first error stops them all and is raised."""
    errors: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        if errors:
            return
        try:
            task()
        except BaseException as error:
            errors.append(error)  # before the others are stopped, and have errors because of it
            meter.stop()

    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in pool.map(run, tasks):
                if errors:
                    break
        except BaseException as error:  # the waiting itself was interrupted
            errors.append(error)
            meter.stop()
    if errors:
        raise errors[0]
