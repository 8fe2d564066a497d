"""Count the values of a tensor, in memory on any device or in a safetensors file.

Weights are read as bit patterns and counted in chunks. Two bytes have 65,536 patterns and one byte
has 256, so bfloat16, float16 and float8 are counted exactly; wider types are rounded to the nearest
bfloat16 first. Each thread reuses its buffers, so memory doesn't grow with the file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from surgery.errors import BaseError
from surgery.sources import Tensor

from .value_counts import ValueCounts

# By safetensors' names. Packed and integer types hold the codes of a quantization, not weights, and
# are left out.
DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
CHUNK = 1 << 20  # values: fewer, and adding up the counts of all 65,536 patterns takes longer
_ON_GPU = 1 << 26


class Counter:
    """Counts the values of one dtype, chunk by chunk."""

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
        on_cpu = values.device.type == "cpu"
        for chunk in values.split(CHUNK if on_cpu else _ON_GPU):
            chunk = chunk.to(self.grid)
            if on_cpu:
                codes = _codes()[: len(chunk)].copy_(chunk.view(self.bits))
            else:
                codes = bit_patterns(chunk)
            counts += torch.bincount(codes, minlength=len(counts))
        self.counts = counts

    def result(self) -> ValueCounts:
        """The counts so far."""
        return ValueCounts.of(_values_of(self.grid), self.counts.cpu().numpy(), self.rounded)


def bit_patterns(values: torch.Tensor) -> torch.Tensor:
    """The bits of values of one or two bytes as numbers from 0 up, in int32. By way of signed ones,
    since not every device has unsigned ones of 16 bits."""
    signed, bits = (torch.int8, 0xFF) if values.itemsize == 1 else (torch.int16, 0xFFFF)
    return values.view(signed).to(torch.int32) & bits


def count_tensor(tensor: torch.Tensor) -> ValueCounts:
    """Count the values of a floating-point tensor on any device."""
    counter = Counter(tensor.dtype)
    counter.add(tensor.detach().contiguous().view(-1))
    return counter.result()


def count_stored(
    folder: Path,
    tensors: Iterable[Tensor],
    each: int | None = None,
    on_read: Callable[[int], None] = lambda size: None,
) -> ValueCounts:
    """Count the values of stored tensors together, of each at most about `each` values if given.

    `on_read` gets the number of bytes of every chunk read, and may raise to stop. Raises
    `BaseError`.
    """
    counters: dict[str, Counter] = {}
    for name, chunk in _chunks(folder, tensors, each, on_read):
        counter = counters.setdefault(name, Counter(DTYPES[name]))
        counter.add(torch.frombuffer(chunk, dtype=DTYPES[name]))
    return ValueCounts.merged(counter.result() for counter in counters.values())


def _chunks(
    folder: Path, tensors: Iterable[Tensor], each: int | None, on_read: Callable[[int], None]
) -> Iterator[tuple[str, memoryview]]:
    """Read tensors one after another into this thread's buffer, and yield it as (name of the dtype,
    bytes) when it is full or another dtype follows: small tensors are counted together."""
    buffer, filled, dtype = memoryview(_buffer()), 0, ""
    for name, inside in groupby(tensors, lambda tensor: tensor.file):
        path = folder / name
        try:
            with open(path, "rb", buffering=0) as file:
                for tensor in inside:
                    if filled and tensor.dtype != dtype:
                        yield dtype, buffer[:filled]
                        filled = 0
                    dtype = tensor.dtype
                    for start, end in _spans(tensor, DTYPES[dtype].itemsize, each):
                        file.seek(start)
                        while start < end:
                            view = buffer[filled : filled + end - start]
                            _fill(file, view, path)
                            on_read(len(view))
                            start += len(view)
                            filled += len(view)
                            if filled == len(buffer):
                                yield dtype, buffer
                                filled = 0
        except OSError as error:
            raise BaseError(f"{path} can't be read: {error.strerror or error}.") from error
    if filled:
        yield dtype, buffer[:filled]


def _spans(tensor: Tensor, width: int, each: int | None) -> list[tuple[int, int]]:
    """The byte ranges of a tensor to read: all of it, or four evenly spaced ones."""
    size = (tensor.end - tensor.start) // width
    if each is None or size <= each:
        return [(tensor.start, tensor.end)] if size else []
    part = max(1, each // 4)
    begins = [tensor.start + (size - part) * k // 3 * width for k in range(4)]
    return [(start, start + part * width) for start in begins]


def sampled_bytes(tensor: Tensor, each: int | None) -> int:
    """The number of bytes of a tensor that `count_stored` reads."""
    spans = _spans(tensor, DTYPES[tensor.dtype].itemsize, each)
    return sum(end - start for start, end in spans)


_local = threading.local()


def _buffer() -> bytearray:
    """This thread's buffer for bytes: a chunk of 16-bit values, or as many bytes of others."""
    if not hasattr(_local, "buffer"):
        _local.buffer = bytearray(2 * CHUNK)
    return _local.buffer


def _codes() -> torch.Tensor:
    """This thread's buffer for the bit patterns of a chunk."""
    if not hasattr(_local, "codes"):
        _local.codes = torch.empty(CHUNK, dtype=torch.int32)
    return _local.codes


def _fill(file, view: memoryview, path: Path) -> None:
    while view:
        got = file.readinto(view)
        if not got:
            raise BaseError(f"{path} ended early: it changed while it was read. Try again.")
        view = view[got:]


@cache
def _values_of(grid: torch.dtype) -> np.ndarray:
    """The value of every bit pattern, as float32."""
    if grid.itemsize == 1:
        codes = torch.arange(256).to(torch.uint8)
    else:
        codes = torch.arange(65_536).to(torch.uint16)
    return codes.view(grid).to(torch.float32).numpy()
