"""The names and metadata of GGUF files that llama.cpp's `gguf-split` cuts a model into."""

from __future__ import annotations

import re
from pathlib import Path

from .fields import Field, number

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
KEYS = (NUMBER, COUNT, TENSORS)
MOST = 1000
_UINT16, _INT32 = 2, 5
_NAME = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)


def piece(stem: str, index: int, count: int) -> str:
    """The file name of a piece, counted from 0, as llama.cpp looks for it."""
    return f"{stem}-{index + 1:05d}-of-{count:05d}.gguf"


def siblings(path: Path, count: int) -> list[Path] | None:
    """The paths of all pieces of a model by that of the first; None if that isn't its name."""
    m = _NAME.fullmatch(path.name)
    if m is None or int(m["number"]) != 1 or int(m["count"]) != count:
        return None
    return [path.with_name(piece(m["stem"], index, count)) for index in range(count)]


def fields(index: int, count: int, tensors: int) -> dict[str, Field]:
    """The metadata that marks a piece; `tensors` are those of all pieces."""
    return {
        NUMBER: number(_UINT16, index),
        COUNT: number(_UINT16, count),
        TENSORS: number(_INT32, tensors),
    }
