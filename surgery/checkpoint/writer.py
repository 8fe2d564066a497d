"""Write tensors into safetensors files: assign them to shards, and copy their bytes.

A safetensors file has eight bytes with the length of its header, a JSON header, and the tensors'
bytes one after the other.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from surgery.io.copy import Mover, Readable, at_once, equal, fill, write_all
from surgery.progress import Meter

from .tensor_spec import Opener, TensorSpec

PAGE = 4096  # bytes that systems keep and share files in
JOB = 64 << 20  # bytes that one worker takes on at a time
BLOCK = 4 << 20  # bytes of changed tensors that are in memory at a time


@dataclass(frozen=True)
class Run:
    """`size` bytes at offset `at` of a new file, from offset `start` of the base's.

    They are tensors that are adjacent in both files, the first of which is `spec`; or one tensor
    that is changed while it is copied.
    """

    spec: TensorSpec
    start: int
    at: int
    size: int

    @property
    def end(self) -> int:
        """Where its bytes end in the base's file."""
        return self.start + (self.size if self.spec.as_stored else self.spec.stored)


@dataclass(frozen=True)
class Shard:
    """One file of the new checkpoint: its name, its header, and (tensor, offset) of each spec.

    It ends with its last tensor, or with `padding` zeros after that.
    """

    name: str
    head: bytes
    places: list[tuple[TensorSpec, int]]
    padding: int = 0

    @property
    def size(self) -> int:
        """Bytes of the file."""
        last, at = self.places[-1]
        return at + last.size + self.padding


def arrange(specs: Iterable[TensorSpec], limit: int) -> list[Shard]:
    """Assign tensors to shards with at most `limit` bytes of tensors each; a larger tensor gets one
    of its own.

    Wide values come first, as in every safetensors file, so that each is at a multiple of its
    width. Then the first copies of everything in the order of the base's files, the second copies
    likewise, …: what is adjacent there stays adjacent.
    """
    ordered = sorted(specs, key=lambda p: (-p.width, p.copy, p.file, p.start))
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in ordered:
        if groups[-1] and filled + spec.size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(spec)
        filled += spec.size
    count = len(groups)
    names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    if count == 1:
        names = ["model.safetensors"]
    return [_shard(name, group) for name, group in zip(names, groups, strict=True)]


def _shard(name: str, group: list[TensorSpec]) -> Shard:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places, offset = [], 0
    for spec in group:
        end = offset + spec.size
        header[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        places.append((spec, offset))
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    # The format lets a header end in spaces. They have the tensors begin at a multiple of eight,
    # and the longest run at the same place within a page as in its source: only then can a file
    # system share its blocks, and pages move whole.
    space = -len(text) % 8
    longest = max(runs(places), key=lambda run: run.size if run.spec.as_stored else 0)
    shift = (longest.start - longest.at - 8 - len(text)) % PAGE
    if longest.spec.as_stored and longest.size >= PAGE and (shift - space) % 8 == 0:
        space = shift
    head = struct.pack("<Q", len(text) + space) + text + b" " * space
    return Shard(name, head, [(spec, len(head) + at) for spec, at in places])


def runs(places: Iterable[tuple[TensorSpec, int]]) -> Iterator[Run]:
    """Join adjacent tensors into runs; `places` are in the order of their offsets."""
    run: Run | None = None
    for spec, at in places:
        if (
            run
            and run.spec.as_stored
            and spec.as_stored
            and (run.spec.file, run.end, run.at + run.size) == (spec.file, spec.start, at)
        ):
            run = replace(run, size=run.size + spec.size)
            continue
        if run:
            yield run
        run = Run(spec, spec.start, at, spec.size)
    if run:
        yield run


def write_shards(folder: Path, shards: list[Shard], opener: Opener, meter: Meter) -> None:
    """Write the shards, and an index if there are several, under the names that transformers
    expects. `meter` counts bytes as they are written. Raises `BaseError` or `OSError`."""
    write_files(folder, shards, opener, meter)
    if len(shards) > 1:
        where = {spec.name: shard.name for shard in shards for spec, _ in shard.places}
        total = sum(spec.size for shard in shards for spec, _ in shard.places)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        text = json.dumps(index, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def write_files(folder: Path, shards: list[Shard], opener: Opener, meter: Meter) -> None:
    """Write each shard's header and tensors; between them are zeros. Raises as `write_shards`
    does."""
    mover = Mover()

    def write(source: Readable, target: BinaryIO, run: Run) -> None:
        if run.spec.as_stored:
            mover.move(source, run.start, target, run.at, run.size, meter)
            return
        target.seek(run.at)
        for data in _new_bytes(source, run.spec, opener):
            write_all(target, data)
            meter.add(len(data))

    for shard in shards:
        (folder / shard.name).write_bytes(shard.head)
    jobs = [
        partial(_with_files, write, opener, folder / shard.name, "r+b", part)
        for shard in shards
        for part in _parts(runs(shard.places))
    ]
    at_once(jobs, meter)
    for shard in shards:
        if (folder / shard.name).stat().st_size < shard.size:  # it ends in a hole
            os.truncate(folder / shard.name, shard.size)


def differing(
    places: Mapping[Path, list[tuple[TensorSpec, int]]], opener: Opener, meter: Meter
) -> list[str]:
    """Names of tensors whose bytes differ from their spec's; of a run, the first one's.

    `places` lists for each file the expected tensors with their offsets, in order. `meter` counts
    bytes. Raises `BaseError`.
    """
    names: list[str] = []

    def check(source: Readable, target: Readable, run: Run) -> None:
        if run.spec.as_stored:
            same = equal(source, run.start, target, run.at, run.size, meter)
        else:
            same, at = True, run.at
            for data in _new_bytes(source, run.spec, opener):
                there = bytearray(len(data))
                fill(target, at, there)
                same, at = same and there == data, at + len(data)
                meter.add(len(data))
        if not same:
            names.append(run.spec.name)

    jobs = [
        partial(_with_files, check, opener, path, "rb", part)
        for path, placed in places.items()
        for part in _parts(runs(placed))
    ]
    at_once(jobs, meter)
    return names


def _parts(runs_: Iterable[Run]) -> Iterator[Run]:
    """Cut runs into parts for one worker each; a tensor that changes stays whole."""
    for run in runs_:
        if not run.spec.as_stored:
            yield run
            continue
        for done in range(0, run.size, JOB):
            size = min(JOB, run.size - done)
            yield replace(run, start=run.start + done, at=run.at + done, size=size)


def _with_files(work, opener: Opener, path: Path, mode: str, run: Run) -> None:
    with open(path, mode, buffering=0) as target:
        if run.spec.make:
            work(None, target, run)
            return
        with opener(run.spec.file, run.start, run.end) as source:
            work(source, target, run)


def _new_bytes(source: Readable | None, spec: TensorSpec, opener: Opener) -> Iterator[memoryview]:
    """The bytes of a tensor that is not the base's own, a block at a time."""
    if spec.make:
        yield from spec.make(opener)
        return
    assert source is not None and spec.change is not None
    for done in range(0, spec.stored, BLOCK):
        values = bytearray(min(BLOCK, spec.stored - done))
        fill(source, spec.start + done, values)
        yield spec.change(values)
