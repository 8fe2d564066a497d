"""A model in a GGUF file or in the pieces of a split one, known from its headers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from surgery.errors import BaseError

from . import pieces
from .fields import Field
from .header import Header, TensorInfo, read_header

ARCHITECTURE, TYPE = "general.architecture", "general.type"
_MOST_LAYERS = 1 << 12
_LAYER = re.compile(r"blk\.([0-9]{1,9})\.(.+)", re.DOTALL)


@dataclass(frozen=True)
class GgufFile:
    """A model as GGUF: `fields` are its metadata, without what marks the pieces of a split one.

    `tensors` are in the order of the `files`; `stamps` are the files' sizes and times of change.
    """

    files: tuple[Path, ...]
    version: int
    alignment: int
    fields: Mapping[str, Field] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    stamps: tuple[tuple[int, int], ...] = field(repr=False)

    @property
    def name(self) -> str:
        """The name of its file, or of the first of its pieces."""
        return self.files[0].name

    @cached_property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        found = self.fields.get(ARCHITECTURE)
        value = found.value if found and not found.is_array else None
        if not isinstance(value, str) or not value:
            raise BaseError(f"{self.name} names no architecture. Download it again.")
        return value

    @cached_property
    def depth(self) -> int:
        """The number of layers."""
        value = self.get("block_count")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST_LAYERS:
            raise BaseError(
                f"{self.name} declares no number of layers ({self.architecture}.block_count)."
            )
        return value

    def get(self, key: str) -> Any:
        """A value by its key without the architecture's name; None if it isn't there."""
        found = self.fields.get(f"{self.architecture}.{key}")
        return None if found is None else found.value

    @cached_property
    def layers(self) -> tuple[dict[str, TensorInfo], ...]:
        """The tensors of each layer, by what follows the layer's number in their names."""
        found: list[dict[str, TensorInfo]] = [{} for _ in range(self.depth)]
        for tensor in self.tensors:
            if place := layer_of(tensor.name):
                layer, rest = place
                if layer >= self.depth:
                    raise BaseError(
                        f"{self.name} has {self.depth} layers and a tensor {tensor.name[:80]}. "
                        "Convert the model again with a newer llama.cpp."
                    )
                found[layer][rest] = tensor
        for layer, tensors in enumerate(found):
            if not tensors:
                raise BaseError(f"{self.name} has no tensors for its layer {layer}.")
        return tuple(found)

    def check_unchanged(self) -> None:
        """Raise `BaseError` if a file has changed since its header was read."""
        for path, stamp in zip(self.files, self.stamps, strict=True):
            if _stamp(path) != stamp:
                raise BaseError(f"{path} changed since it was opened. Try again.")


def layer_of(name: str) -> tuple[int, str] | None:
    """(layer, the rest of the name) of a layer's tensor; None for any other."""
    m = _LAYER.fullmatch(name)
    return (int(m[1]), m[2]) if m else None


def open_gguf_file(path: Path) -> GgufFile:
    """Read the headers of a GGUF file, and of its siblings if it is the first piece of a split
    model. Raises `BaseError`."""
    stamps = [_stamp(path)]
    first = read_header(path)
    files, headers = [path], [first]
    count = _count(first, path)
    if count > 1:
        found = pieces.siblings(path, count)
        if found is None or first.fields[pieces.NUMBER].value != 0:
            raise BaseError(
                f"{path.name} is a piece of a model in {count} files. Name the first of them, "
                f"which ends in {pieces.piece('', 0, count)}."
            )
        for index, other in enumerate(found[1:], 1):
            if not other.is_file():
                raise BaseError(f"{other.name} is missing: {path.name} is split into {count}.")
            stamps.append(_stamp(other))
            header = read_header(other)
            number = header.fields.get(pieces.NUMBER)
            if _count(header, other) != count or number is None or number.value != index:
                raise BaseError(f"{other.name} doesn't belong to {path.name}.")
            files.append(other)
            headers.append(header)
    tensors = [tensor for header in headers for tensor in header.tensors]
    _check_complete(path, headers, tensors)
    return GgufFile(
        files=tuple(files),
        version=first.version,
        alignment=first.alignment,
        fields={key: value for key, value in first.fields.items() if key not in pieces.KEYS},
        tensors=tuple(tensors),
        stamps=tuple(stamps),
    )


def _check_complete(path: Path, headers: list[Header], tensors: list[TensorInfo]) -> None:
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise BaseError(f"A tensor of {path.name} is in two of its pieces.")
    declared = headers[0].fields.get(pieces.TENSORS)
    if len(headers) > 1 and declared is not None and declared.value != len(tensors):
        raise BaseError(
            f"The pieces of {path.name} hold {len(tensors):,} tensors instead of "
            f"{declared.value}. Download them again."
        )
    if not tensors:
        raise BaseError(f"{path.name} holds no tensors.")


def _count(header: Header, path: Path) -> int:
    found = header.fields.get(pieces.COUNT)
    value = 1 if found is None else found.value
    if not isinstance(value, int) or not 0 <= value <= pieces.MOST:
        raise BaseError(f"{path.name} is said to be split into {str(value)[:20]} files.")
    if value > 1 and pieces.NUMBER not in header.fields:
        raise BaseError(f"{path.name} doesn't say which piece it is.")
    return value


def _stamp(path: Path) -> tuple[int, int]:
    if not path.exists():
        raise BaseError(f"There is no file {path}.")
    if not path.is_file():  # a pipe may never say anything
        raise BaseError(f"{path} is not a file.")
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
