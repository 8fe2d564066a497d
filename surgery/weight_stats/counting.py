"""From weights to counts: a tensor in memory, on any device, or one in a safetensors file.

Weights are taken as bit patterns and counted in pieces that stay in the processor's cache. Two
bytes have 65,536 patterns and one byte has 256, so bfloat16, float16 and float8 are exact; wider
types are rounded to the nearest bfloat16 first. No piece outlives its count, so the memory that is
needed does not grow with the file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import torch

from surgery.errors import BaseError
from surgery.sources import Tensor

from .value_counts import Tally

# safetensors' names of the dtypes whose values are weights. Packed and integer types are codes of
# some quantisation: a picture of them would show the code and not the weight.
DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
PIECE = 1 << 18  # values: half a megabyte of bfloat16 and one of the integers it is counted as
_ON_GPU = 1 << 26


class Counter:
    """Counts values of one dtype as they come."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.rounded = dtype.itemsize > 2
        self.grid = torch.bfloat16 if self.rounded else dtype
        self.bits = torch.uint8 if self.grid.itemsize == 1 else torch.uint16
        self.counts = torch.zeros(1 << 8 * self.grid.itemsize, dtype=torch.int64)

    def add(self, values: torch.Tensor) -> None:
        """Count a flat, contiguous tensor."""
        if not values.numel():
            return
        counts = self.counts.to(values.device)
        for piece in values.split(PIECE if values.device.type == "cpu" else _ON_GPU):
            codes = piece.to(self.grid).view(self.bits).to(torch.int32)
            counts += torch.bincount(codes, minlength=len(counts))
        self.counts = counts

    def tally(self) -> Tally:
        """What was counted."""
        return Tally.of(_meanings(self.grid), self.counts.cpu().numpy(), self.rounded)


def count_tensor(tensor: torch.Tensor) -> Tally:
    """The counts of a floating-point tensor, wherever it is."""
    counter = Counter(tensor.dtype)
    counter.add(tensor.detach().contiguous().view(-1))
    return counter.tally()


def count_stored(
    folder: Path,
    tensors: Iterable[Tensor],
    each: int | None = None,
    heard: Callable[[int], None] = lambda size: None,
) -> Tally:
    """The counts of stored tensors together; at most about `each` values of every one if given.

    `heard` is told of bytes as they are read, and may raise to stop. Raises `BaseError`.
    """
    counters: dict[str, Counter] = {}
    buffer = _buffer()
    for tensor in tensors:
        dtype = DTYPES[tensor.dtype]
        counter = counters.setdefault(tensor.dtype, Counter(dtype))
        path = folder / tensor.file
        step = PIECE * dtype.itemsize
        try:
            with open(path, "rb", buffering=0) as file:
                for start, end in _spans(tensor, dtype.itemsize, each):
                    file.seek(start)
                    for at in range(start, end, step):
                        view = memoryview(buffer)[: min(step, end - at)]
                        _fill(file, view, path)
                        counter.add(torch.frombuffer(view, dtype=dtype))
                        heard(len(view))
        except OSError as error:
            raise BaseError(f"{path} can't be read: {error.strerror or error}.") from error
    return Tally.merged(counter.tally() for counter in counters.values())


def _spans(tensor: Tensor, width: int, each: int | None) -> list[tuple[int, int]]:
    """The parts of a tensor to read: all of it, or four at even distances."""
    size = (tensor.end - tensor.start) // width
    if each is None or size <= each:
        return [(tensor.start, tensor.end)] if size else []
    part = max(1, each // 4)
    begins = [tensor.start + (size - part) * k // 3 * width for k in range(4)]
    return [(start, start + part * width) for start in begins]


def sampled_bytes(tensor: Tensor, each: int | None) -> int:
    """How many bytes of a tensor `count_stored` reads."""
    spans = _spans(tensor, DTYPES[tensor.dtype].itemsize, each)
    return sum(end - start for start, end in spans)


_mine = threading.local()


def _buffer() -> bytearray:
    """Room for a piece of any dtype, the same for all that a thread reads."""
    if not hasattr(_mine, "buffer"):
        _mine.buffer = bytearray(PIECE * 8)
    return _mine.buffer


def _fill(file, view: memoryview, path: Path) -> None:
    while view:
        got = file.readinto(view)
        if not got:
            raise BaseError(f"{path} ended early: it changed while it was read. Try again.")
        view = view[got:]


@cache
def _meanings(grid: torch.dtype):
    """The value of every bit pattern."""
    if grid.itemsize == 1:
        codes = torch.arange(256).to(torch.uint8)
    else:
        codes = torch.arange(65_536).to(torch.uint16)
    return codes.view(grid).to(torch.float32).numpy()
