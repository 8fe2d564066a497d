"""The merged weights as one safetensors file that need not exist: its bytes are computed when they
are read, one tensor at a time."""

from __future__ import annotations

import json
import struct
import threading
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from surgery.errors import BaseError
from surgery.io.copy import CHUNK, Readable, by_buffer, fill
from surgery.io.positioned import Positioned
from surgery.progress import Meter, Progress
from surgery.sources.folder import SINGLE
from surgery.sources.safetensors_header import BITS
from surgery.sources.source import Opener, Tensor

from .tensors import Make, Read

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class MergedFile:
    """A file with the tensors in `stored`: name in the file → where it is in the base's files.
    `changes` are those of some of them; `read` reads the adapter's tensors."""

    def __init__(
        self,
        name: str,
        stored: Mapping[str, Tensor],
        changes: Mapping[str, list[Make]],
        read: Read,
    ) -> None:
        self.name, self._stored, self._changes, self._read = name, stored, changes, read
        order = sorted(stored, key=lambda one: (-BITS[stored[one].dtype], *_where(stored[one])))
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        at = 0
        for one in order:
            tensor = stored[one]
            end = at + tensor.end - tensor.start
            header[one] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [at, end],
            }
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.head = struct.pack("<Q", len(text)) + text
        self.tensors: dict[str, Tensor] = {}
        at = len(self.head)
        for one in order:
            end = at + stored[one].end - stored[one].start
            self.tensors[one] = replace(stored[one], file=SINGLE, start=at, end=end)
            at = end
        self.size = at
        # An empty tensor starts where the next one does, so it must not be the one that is found.
        filled = [one for one in order if self.tensors[one].end > self.tensors[one].start]
        self._order, self._starts = filled, [self.tensors[one].start for one in filled]
        self._one_at_a_time, self._last = threading.Lock(), ("", memoryview(b""))

    def opener(self, base: Opener) -> Opener:
        """Return a function that opens parts of this file; `base` opens those of the base's."""
        return lambda file, start, end: _Reader(self, base, start)

    def write(self, path: Path, base: Opener, progress: Progress) -> None:
        """Write the file. Raises `BaseError` or `OSError`."""
        meter = Meter(progress, "Merging the adapter", self.size)
        with self.opener(base)(SINGLE, 0, self.size) as source, open(path, "wb") as target:
            for done in range(0, self.size, CHUNK):
                size = min(CHUNK, self.size - done)
                by_buffer(source, done, target, done, size)
                meter.add(size)

    def place_of(self, at: int) -> str | None:
        """The tensor at an offset behind the header; None at the end."""
        return self._order[bisect_right(self._starts, at) - 1] if at < self.size else None

    def origin(self, name: str) -> Tensor | None:
        """Where a tensor that the adapter doesn't change lies in the base's files."""
        return None if name in self._changes else self._stored[name]

    def merged(self, name: str, base: Opener) -> memoryview:
        """The bytes of a changed tensor. Only one is computed at a time. Raises `BaseError`."""
        with self._one_at_a_time:
            if self._last[0] != name:
                self._last = ("", memoryview(b""))  # frees the one before
                self._last = (name, self._merge(name, base))
            return self._last[1]

    def _merge(self, name: str, base: Opener) -> memoryview:
        with torch.no_grad():
            weight = self._of_base(name, base)
            dtype = weight.dtype
            for make in self._changes[name]:
                weight = make(self._read).apply(weight)
            if not _is_finite(weight) and _is_finite(self._of_base(name, base)):
                raise BaseError(
                    f"Merged with {self.name}, {name} has values that are not finite in "
                    f"{str(dtype).removeprefix('torch.')}. Download the adapter again, or use the "
                    "base in bfloat16 or float32."
                )
            return weight.contiguous().view(-1).view(torch.uint8).numpy().data

    def _of_base(self, name: str, base: Opener) -> torch.Tensor:
        tensor = self._stored[name]
        raw = bytearray(tensor.end - tensor.start)
        with base(tensor.file, tensor.start, tensor.end) as file:
            fill(file, tensor.start, raw)
        values = torch.frombuffer(raw, dtype=torch.uint8).view(_DTYPES[tensor.dtype])
        return values.view(tensor.shape)


def _is_finite(weight: torch.Tensor) -> bool:
    """Whether all values are finite. A sum of them says so faster, unless it overflows."""
    total = weight.sum(dtype=torch.promote_types(weight.dtype, torch.float32))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(weight).all())


def _where(tensor: Tensor) -> tuple[str, int]:
    return tensor.file, tensor.start


class _Reader(Positioned):
    """A position in a merged file."""

    def __init__(self, file: MergedFile, base: Opener, start: int) -> None:
        super().__init__(f"the base merged with {file.name}", start)
        self._file, self._base = file, base
        self._tensor: str | None = None
        self._bytes: memoryview | None = None
        self._source: Readable | None = None

    def readinto(self, into) -> int:
        """Read what is left of the header or of one tensor, as far as it fits. Raises
        `BaseError`."""
        view = memoryview(into).cast("B")
        head = self._file.head
        if self._at < len(head):
            return self._take(view, head, self._at)
        name = self._file.place_of(self._at)
        if name is None or not view:
            return 0
        if name != self._tensor:
            self._enter(name)
        begin = self._file.tensors[name].start
        if self._bytes is not None:
            return self._take(view, self._bytes, self._at - begin)
        tensor, source = self._file.origin(name), self._source
        assert tensor is not None and source is not None
        start = tensor.start + self._at - begin
        count = min(len(view), tensor.end - start)
        fill(source, start, view[:count])
        self._at += count
        return count

    def _take(self, view: memoryview, data: bytes | memoryview, start: int) -> int:
        count = min(len(view), len(data) - start)
        view[:count] = data[start : start + count]
        self._at += count
        return count

    def _enter(self, name: str) -> None:
        """Have a tensor's bytes at hand: those of a changed one, or the file of another."""
        self._leave()
        if (tensor := self._file.origin(name)) is None:
            self._bytes = self._file.merged(name, self._base)
        else:
            self._source = self._base(tensor.file, tensor.start, tensor.end)
        self._tensor = name

    def _leave(self) -> None:
        if self._source is not None:
            self._source.__exit__(None, None, None)
        self._tensor = self._bytes = self._source = None

    def close(self) -> None:
        self._leave()
        super().close()
