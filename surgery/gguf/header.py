"""Read the header of a GGUF file: its metadata, and which tensor lies where.

Nothing in it is trusted (github.com/ggml-org/ggml/blob/master/docs/gguf.md): counts, lengths and
offsets are checked against the size of the file before they are used. Nothing is decoded but what
is needed to find the end of the header.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from surgery.errors import BaseError
from surgery.io.copy import reading

from .fields import ARRAY, SIZES, STRING, UINT32, Field
from .ggml_types import TYPES, GgmlType

ALIGNMENT = "general.alignment"
MAX_NAME = 63  # bytes of a tensor's name in llama.cpp
_DEFAULT_ALIGNMENT = 32
_LONGEST = 256 << 20  # bytes of metadata; the largest tokenizers have about 20 MB
_MOST_FIELDS = 1 << 16
_MOST_TENSORS = 1 << 18
_MOST_DIMENSIONS = 4
_BUFFER = 1 << 16
_LENGTH = struct.Struct("<Q").unpack_from


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a GGUF file: `size` bytes at offset `start` of `file`. In `shape` the dimension
    along which values are adjacent comes first."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    file: Path
    start: int
    size: int

    @property
    def values(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What one file's header says. `alignment` is in bytes, and holds for the tensors' offsets."""

    version: int
    alignment: int
    fields: Mapping[str, Field]
    tensors: tuple[TensorInfo, ...]


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file. Raises `BaseError`, with what is wrong with the file."""
    with reading(path), open(path, "rb", buffering=_BUFFER) as file:
        return _Reader(file, path).header()


class _Reader:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.size = file.seek(0, 2)
        self.at = file.seek(0)

    def header(self) -> Header:
        magic = self.file.read(4)
        self.at = 4
        if magic != b"GGUF":
            raise BaseError(f"{self.path.name} is not a GGUF file. Download it again.")
        (version,) = self.numbers("I")
        if version and not version & 0xFFFF:
            raise BaseError(
                f"{self.path.name} is a big-endian GGUF file, which is not supported. Use the "
                "little-endian one."
            )
        if version not in (2, 3):
            raise BaseError(
                f"{self.path.name} is a GGUF file of version {version}. Versions 2 and 3 are "
                "supported: convert it again with a newer llama.cpp."
            )
        tensors, fields = self.numbers("QQ")
        self.expect(fields <= _MOST_FIELDS, f"it declares {fields:,} metadata fields")
        self.expect(tensors <= _MOST_TENSORS, f"it declares {tensors:,} tensors")
        found: dict[str, Field] = {}
        for _ in range(fields):
            key = self.string("a key")
            self.expect(bool(key), "a key is empty")
            self.expect(key not in found, f"the key {key[:60]} appears twice")
            found[key] = self.field(key)
        alignment = self.alignment(found)
        infos = [self.tensor() for _ in range(tensors)]
        return Header(version, alignment, found, self.placed(infos, alignment))

    def expect(self, holds: bool, problem: str) -> None:
        """Raise `BaseError` with the problem unless it holds."""
        if not holds:
            raise BaseError(
                f"{self.path.name} is not a valid GGUF file: {problem}. Download it again."
            )

    def take(self, size: int) -> bytes:
        """The next bytes, if the file has as many."""
        self.expect(size <= self.size - self.at, "it is cut off in its header")
        self.expect(self.at + size <= _LONGEST, "its metadata is longer than any model's")
        data = self.file.read(size)
        self.expect(len(data) == size, "it is cut off in its header")
        self.at += size
        return data

    def numbers(self, letters: str) -> tuple[int, ...]:
        layout = f"<{letters}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def string(self, what: str) -> str:
        (size,) = self.numbers("Q")
        self.expect(size < 1 << 16, f"{what} has {size:,} bytes")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            self.expect(False, f"{what} is not text")
            raise

    def field(self, key: str) -> Field:
        (kind,) = self.numbers("I")
        count = None
        if kind == ARRAY:
            kind, count = self.numbers("IQ")
        number = 1 if count is None else count
        if kind in SIZES:
            return Field(kind, self.take(SIZES[kind] * number), count)
        self.expect(kind == STRING, f"{key[:60]} has the unknown type {kind}")
        return Field(STRING, self.strings(number), count)

    def strings(self, number: int) -> bytes:
        """The next strings, with their lengths. A tokenizer has hundreds of thousands of them, so
        they are read many at a time."""
        self.expect(8 * number <= self.size - self.at, "it is cut off in its header")
        data, end = bytearray(), 0
        for _ in range(number):
            if end + 8 > len(data):
                data += self.ahead(end + 8 - len(data))
            end += 8 + _LENGTH(data, end)[0]
        if end > len(data):
            data += self.ahead(end - len(data))
        back = len(data) - end
        del data[end:]
        self.at -= back
        self.file.seek(self.at)
        return bytes(data)

    def ahead(self, size: int) -> bytes:
        """The next bytes: as many, or more."""
        return self.take(max(size, min(_BUFFER, self.size - self.at)))

    def alignment(self, fields: Mapping[str, Field]) -> int:
        field = fields.get(ALIGNMENT)
        if field is None:
            return _DEFAULT_ALIGNMENT
        self.expect(
            field.kind == UINT32 and not field.is_array, f"{ALIGNMENT} is no 32-bit integer"
        )
        value = field.value
        fits = 1 <= value <= 1 << 16 and value & (value - 1) == 0
        self.expect(fits, f"its alignment of {value} bytes is not a power of two")
        return value

    def tensor(self) -> TensorInfo:
        """The next tensor, with its offset from where the tensors begin."""
        name = self.string("a tensor's name")
        shown = name[:MAX_NAME]
        self.expect(0 < len(name.encode()) <= MAX_NAME, f"a tensor has the name {shown!r}")
        (dimensions,) = self.numbers("I")
        self.expect(dimensions <= _MOST_DIMENSIONS, f"{shown} has {dimensions} dimensions")
        shape = self.numbers("Q" * dimensions)
        number, start = self.numbers("IQ")
        kind = TYPES.get(number)
        if kind is None:
            raise BaseError(
                f"{shown} in {self.path.name} has tensor type {number}, which is not known here. "
                "Update the gguf package, or use another quantization."
            )
        values = math.prod(shape)
        self.expect(0 < values < 1 << 63, f"{shown} has the shape {list(shape)}")
        row = shape[0] if shape else 1
        self.expect(row % kind.block == 0, f"{shown} has rows of {row} values as {kind.name}")
        return TensorInfo(name, shape, kind, self.path, start, values // kind.block * kind.bytes)

    def placed(self, infos: list[TensorInfo], alignment: int) -> tuple[TensorInfo, ...]:
        """The tensors with offsets from the start of the file, in the order of those."""
        begin = self.at + -self.at % alignment
        self.expect(len({info.name for info in infos}) == len(infos), "a tensor appears twice")
        placed, end = [], begin
        for info in sorted(infos, key=lambda info: info.start):
            start = begin + info.start
            self.expect(info.start % alignment == 0, f"{info.name} is not aligned")
            self.expect(start >= end, f"{info.name} overlaps another tensor")
            end = start + info.size
            self.expect(end <= self.size, f"it ends before its tensor {info.name} does")
            placed.append(TensorInfo(info.name, info.shape, info.type, info.file, start, info.size))
        return tuple(placed)
