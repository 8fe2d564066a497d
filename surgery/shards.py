"""Tensors into safetensors files, one at a time, in constant memory.

Knows the safetensors format: eight bytes with the header's length, a JSON header, the tensors'
bytes one after the other. Where the bytes come from is each tensor's own affair.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import BaseError

CHUNK = 8 << 20


@dataclass(frozen=True)
class Piece:
    """A tensor to be written: `size` bytes, which `write` puts into the file it is given."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    write: Callable[[BinaryIO], None]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the disk complains of while the base is read, told apart from trouble with writing."""
    try:
        yield
    except OSError as error:
        raise BaseError(f"{path} can't be read: {error.strerror or error}.") from error


def from_file(path: Path, start: int, end: int) -> Callable[[BinaryIO], None]:
    """Bytes [start, end) of another file, moved through a small buffer."""

    def write(out: BinaryIO) -> None:
        left = end - start
        with reading(path):
            source = open(path, "rb")  # noqa: SIM115  closed below
        with source:
            source.seek(start)
            while left:
                with reading(path):
                    chunk = source.read(min(CHUNK, left))
                if not chunk:
                    raise BaseError(f"{path} ended early: it changed while it was read.")
                out.write(chunk)
                left -= len(chunk)

    return write


def split(pieces: Iterable[Piece], limit: int) -> list[list[Piece]]:
    """Pieces into shards of at most `limit` bytes; a larger tensor has one of its own."""
    shards: list[list[Piece]] = [[]]
    filled = 0
    for piece in pieces:
        if shards[-1] and filled + piece.size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(piece)
        filled += piece.size
    return shards


def write_shards(
    folder: Path, shards: list[list[Piece]], on_bytes: Callable[[int], None]
) -> list[Path]:
    """Write the shards, and an index where there are several, by the names that transformers
    expects. `on_bytes` hears of every tensor's bytes as they are written."""
    count = len(shards)
    paths, where = [], {}
    for number, shard in enumerate(shards, 1):
        name = (
            "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        )
        _write_file(folder / name, shard, on_bytes)
        paths.append(folder / name)
        where |= {piece.name: name for piece in shard}
    if count > 1:
        total = sum(piece.size for shard in shards for piece in shard)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def _write_file(path: Path, shard: list[Piece], on_bytes: Callable[[int], None]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for piece in shard:
        header[piece.name] = {
            "dtype": piece.dtype,
            "shape": list(piece.shape),
            "data_offsets": [offset, offset + piece.size],
        }
        offset += piece.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for piece in shard:
            before = out.tell()
            piece.write(out)
            if out.tell() - before != piece.size:
                raise OSError(f"{piece.name} has {out.tell() - before} bytes, not {piece.size}")
            on_bytes(piece.size)
        out.flush()
        os.fsync(out.fileno())
