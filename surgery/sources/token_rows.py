"""Stored tensors with fewer rows than they have in their files, or with more behind them.

Fewer rows are a shorter stretch of the file. More are a file that need not exist: the stored bytes,
then those of the new rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Mapping
from dataclasses import replace

import numpy as np
import torch

from surgery.errors import BaseError
from surgery.io.copy import Readable, fill
from surgery.io.positioned import Positioned

from .source import Opener, Tensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCK = 8 << 20  # bytes of a tensor that are in memory at a time

# (name, stored tensor, opener) -> the rows behind those that are kept, in its dtype
NewRows = Callable[[str, Tensor, Opener], torch.Tensor]


class TokenRows:
    """Tensors with `count` rows each, the first `kept` of them their own. `new_rows` makes the
    others; it is asked once for each tensor."""

    def __init__(self, kept: int, count: int, new_rows: NewRows) -> None:
        self.kept, self.count, self._new_rows = kept, count, new_rows
        # By the name of the file that need not exist: the tensor's name, and all that is stored.
        self._virtual: dict[str, tuple[str, Tensor]] = {}
        self._made: dict[str, torch.Tensor] = {}
        self._making = threading.Lock()

    def tensors(self, stored: Mapping[str, Tensor], names: Container[str]) -> dict[str, Tensor]:
        """`stored` with those called `names` resized."""
        return {
            name: self._resized(name, tensor) if name in names else tensor
            for name, tensor in stored.items()
        }

    def _resized(self, name: str, tensor: Tensor) -> Tensor:
        rows = tensor.shape[0]
        size = (tensor.end - tensor.start) // rows * self.count
        shape = (self.count, *tensor.shape[1:])
        if self.count == self.kept:
            return replace(tensor, shape=shape, end=tensor.start + size)
        file = _virtual_file(name)
        self._virtual[file] = name, tensor
        return replace(tensor, shape=shape, file=file, start=0, end=size)

    def opener(self, stored: Opener) -> Opener:
        """Return a function that opens parts of the resized tensors' files, too; `stored` opens
        those of the others."""

        def open_(file: str, start: int, end: int) -> Readable:
            if file in self._virtual:
                tensor = self._virtual[file][1]
                own = tensor.start + (tensor.end - tensor.start) // tensor.shape[0] * self.kept
                kept = replace(tensor, end=own)
                return _Reader(kept, lambda: self._behind(file, stored), stored)
            return stored(file, start, end)

        return open_

    def more(self, name: str, stored: Opener) -> torch.Tensor | None:
        """The new rows of a tensor, in the dtype that it is stored in; None if there are none."""
        file = _virtual_file(name)
        return self._rows(file, stored) if file in self._virtual else None

    def _rows(self, file: str, stored: Opener) -> torch.Tensor:
        with self._making:
            if file not in self._made:
                self._made[file] = self._new_rows(*self._virtual[file], stored)
            return self._made[file]

    def _behind(self, file: str, stored: Opener) -> memoryview:
        rows = self._rows(file, stored).contiguous()
        return rows.view(-1).view(torch.uint8).numpy().data


def _virtual_file(name: str) -> str:
    return f"\0{name}"  # no file in a folder has such a name


def read_rows(tensor: Tensor, first: int, count: int, open_: Opener) -> torch.Tensor:
    """Rows [first, first + count) of a stored tensor. Raises `BaseError`."""
    row = (tensor.end - tensor.start) // tensor.shape[0]
    start = tensor.start + first * row
    raw = bytearray(count * row)
    with open_(tensor.file, start, start + len(raw)) as file:
        fill(file, start, raw)
    values = torch.frombuffer(raw, dtype=torch.uint8).view(DTYPES[tensor.dtype])
    return values.view(count, *tensor.shape[1:])


def mean_row(tensor: Tensor, open_: Opener) -> torch.Tensor:
    """The mean of a stored tensor's rows, in its dtype: one row. Summed in float64, row after row,
    so that it is the same each time. Raises `BaseError`."""
    rows = tensor.shape[0]
    step = max(1, _BLOCK * rows // (tensor.end - tensor.start))
    total = np.zeros(tensor.shape[1:])
    for first in range(0, rows, step):
        block = read_rows(tensor, first, min(step, rows - first), open_)
        total = total + block.double().numpy().sum(0)
    return torch.from_numpy(np.asarray(total / rows)).to(DTYPES[tensor.dtype])[None]


class _Reader(Positioned):
    """A position in a tensor with rows behind its own."""

    def __init__(self, tensor: Tensor, behind: Callable[[], memoryview], stored: Opener) -> None:
        super().__init__(f"the resized {tensor.file}")
        self._tensor, self._behind, self._open = tensor, behind, stored
        self._source: Readable | None = None

    def readinto(self, into) -> int:
        """Read what is left of the stored rows or of the new ones, as far as it fits. Raises
        `BaseError`."""
        view = memoryview(into).cast("B")
        own = self._tensor.end - self._tensor.start
        if self._at < own:
            count = min(len(view), own - self._at)
            start = self._tensor.start + self._at
            if self._source is None:
                self._source = self._open(self._tensor.file, start, self._tensor.end)
            fill(self._source, start, view[:count])
        else:
            rest = self._behind()[self._at - own :]
            count = min(len(view), len(rest))
            view[:count] = rest[:count]
        self._at += count
        return count

    def close(self) -> None:
        if self._source is not None:
            self._source.__exit__(None, None, None)
            self._source = None
        super().close()


def check_plain(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise `BaseError` if a tensor is not stored as its model has it: values of `shape`, a row
    after the other."""
    if tensor.dtype not in DTYPES or tuple(tensor.shape) != shape:
        raise BaseError(
            f"The embeddings can't be resized: {name} is stored as {tensor.dtype} "
            f"{list(tensor.shape)}, packed or converted when it is loaded."
        )
