"""Metadata values of a GGUF file: as their bytes, decoded when they are asked for.

Values that a plan doesn't change are written as the bytes that were read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

UINT32, STRING, ARRAY = 4, 8, 9
# GGUF's numbers of value types, with struct's letters for those of one size.
LETTERS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", UINT32: "I", 5: "i", 6: "f", 7: "?"},
    **{10: "Q", 11: "q", 12: "d"},
}
SIZES = {kind: struct.calcsize(letter) for kind, letter in LETTERS.items()}


@dataclass(frozen=True)
class Field:
    """A value of type `kind`; or an array of `count` values of that type. `raw` are the bytes of
    the value, or of the array's values."""

    kind: int
    raw: bytes
    count: int | None = None

    @property
    def is_array(self) -> bool:
        return self.count is not None

    @property
    def encoded(self) -> bytes:
        """The value with its type, as it stands behind its key."""
        if self.count is None:
            return struct.pack("<I", self.kind) + self.raw
        return struct.pack("<IIQ", ARRAY, self.kind, self.count) + self.raw

    @property
    def value(self) -> Any:
        """The value in Python: a number, a bool, a string, or a list of them."""
        if self.kind == STRING:
            texts = list(self._texts())
            return texts if self.is_array else texts[0]
        count = 1 if self.count is None else self.count
        values = struct.unpack(f"<{count}{LETTERS[self.kind]}", self.raw)
        return list(values) if self.is_array else values[0]

    def with_value(self, value: Any) -> Field:
        """A field of the same type with another number, or other numbers in its array. Raises
        `struct.error` for one that the type can't hold."""
        values = list(value) if self.is_array else [value]
        raw = struct.pack(f"<{len(values)}{LETTERS[self.kind]}", *values)
        return replace(self, raw=raw, count=len(values) if self.is_array else None)

    def _texts(self) -> Iterable[str]:
        at = 0
        for _ in range(1 if self.count is None else self.count):
            (size,) = struct.unpack_from("<Q", self.raw, at)
            yield self.raw[at + 8 : at + 8 + size].decode("utf-8", "replace")
            at += 8 + size


def text(value: str) -> Field:
    """A field that holds a string."""
    return Field(STRING, packed(value))


def number(kind: int, value: int) -> Field:
    """A field that holds a number of a given type."""
    return Field(kind, struct.pack(f"<{LETTERS[kind]}", value))


def packed(value: str) -> bytes:
    """A string as GGUF stores it: its length, then its bytes."""
    raw = value.encode("utf-8", "replace")
    return struct.pack("<Q", len(raw)) + raw
