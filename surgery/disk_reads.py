"""How long reading weights from disk takes, said before it starts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from .io.copy import reading
from .memory.devices import gigabytes
from .plan import Plan
from .sources.read_ahead import HEAD

if TYPE_CHECKING:
    from .model import Model

_CHUNK = 8 << 20  # bytes
_ENOUGH = 0.3  # seconds of reading that show the disk's speed


@dataclass(frozen=True)
class DiskReads:
    """Weights that are read from disk as they are used. `size`: bytes that one pass over all layers
    reads, whatever the number of its tokens. `speed`: bytes per second that the disk delivers."""

    size: int
    speed: float

    @property
    def seconds(self) -> float:
        """Seconds that one pass reads. A token of text takes a pass."""
        return self.size / self.speed

    def __str__(self) -> str:
        return (
            f"Weights are read from disk as they are used: {gigabytes(self.size)} for every pass "
            f"over the layers, {self.seconds:.1f} s at {gigabytes(self.speed)}/s"
        )


def text_speed(base: Model, plan: Plan) -> str:
    """A sentence on how fast text comes at most; empty if weights aren't read from disk."""
    reads = disk_reads(base, plan)
    return f"{reads}: at most {1 / reads.seconds:.2g} tokens/s." if reads else ""


def disk_reads(base: Model, plan: Plan) -> DiskReads | None:
    """What a pass of `plan` reads; None if weights aren't read from disk. Loads the base. Raises
    `BaseError`."""
    base.load()
    if not base.reads_from_disk:
        return None
    order = [*plan.sources, HEAD]
    layers = [layer for layer, _ in groupby(order)]  # one that follows itself is read once
    size = sum(t.end - t.start for i in layers for t in base.mapped.by_layer.get(i, ()))
    folder = base.source.files_folder()
    files = {folder / tensor.file for tensor in base.mapped.tensors.values()}
    return DiskReads(size, read_speed(files))


def read_speed(paths: Iterable[Path]) -> float:
    """Bytes per second at which the largest of some files is read in order, measured in less than a
    second. What the system holds in memory of that file is dropped first, where it can be told so.
    Raises `BaseError`."""
    path = max(paths, key=lambda path: path.stat().st_size)
    with reading(path), open(path, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        buffer = bytearray(_CHUNK)
        begun, done, took = time.perf_counter(), 0, 0.0
        while took < _ENOUGH and (count := file.readinto(buffer)):
            done += count
            took = time.perf_counter() - begun
        return done / took if done else float("inf")
