"""Compute in the dtype that a device multiplies fastest, whatever dtype the weights are stored in.

Many processors have no instructions for bfloat16 or float16: products of many rows take several
times as long as in float32. One row is limited by reading the weights and is fastest as stored. So
prompts, scores, comparisons and training compute in `compute_dtype`; decoding computes as stored.
Stored bytes, saved files and published counts don't change.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from .devices import main_memory
from .errors import SurgeryError

VARIABLE = "LAYER_SURGERY_COMPUTE_DTYPE"  # overrides the measurement
CHOICES = ("auto", "float32", "stored")
_HALVES = (torch.bfloat16, torch.float16)
_FEW_ROWS = 8  # at most so many rows are read-bound, and fastest as stored
_CLEARLY = 1.5  # times faster than the stored dtype, or it isn't worth the conversions
_SHARE = 0.25  # of free memory for float32 copies of weights

# Functions that want one dtype, and are slow in a half where the processor lacks instructions for
# it. Other functions promote by themselves.
_PRODUCTS = {
    F.linear,
    F.bilinear,
    F.conv1d,
    F.conv2d,
    F.layer_norm,
    F.rms_norm,
    F.group_norm,
    F.scaled_dot_product_attention,
    torch.addmm,
    torch.baddbmm,
    torch.bmm,
    torch.conv1d,
    torch.einsum,
    torch.layer_norm,
    torch.matmul,
    torch.mm,
    torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__,
    torch.Tensor.addmm,
    torch.Tensor.baddbmm,
    torch.Tensor.bmm,
    torch.Tensor.matmul,
    torch.Tensor.mm,
    *(f for f in (getattr(F, "grouped_mm", None), getattr(torch, "_grouped_mm", None)) if f),
}
_LOOKUPS = {F.embedding, torch.embedding}
_active = threading.local()  # how many `Float32` contexts this thread is in
_DTYPE = vars(torch._C.TensorBase)["dtype"].__get__


def compute_dtype(model: nn.Module) -> torch.dtype:
    """The dtype for products of many rows: float32, or the one the model's weights are stored in.

    float32 where weights are stored in a half on a CPU that multiplies float32 clearly faster. The
    environment variable `LAYER_SURGERY_COMPUTE_DTYPE` (auto, float32, stored) overrides the
    measurement. Raises `SurgeryError` for another value.
    """
    stored = stored_dtype(model)
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted not in CHOICES:
        raise SurgeryError(f"{VARIABLE} is “{wanted[:40]}”: it can be {', '.join(CHOICES)}.")
    if stored not in _HALVES or wanted == "stored" or not _is_plain(model):
        return stored
    if wanted == "float32":
        return torch.float32
    on_cpu = next(model.parameters()).device.type == "cpu"
    faster = on_cpu and float32_gain(stored) > _CLEARLY
    return torch.float32 if faster else stored


def stored_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of a model's weights: of the first that is a floating-point number."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


@functools.cache
def float32_gain(stored: torch.dtype) -> float:
    """How many times faster this machine's CPU multiplies float32 matrices than `stored` ones.

    Measured once per process, in hundredths of a second: 256 rows by a square matrix of 1,024.
    """
    gains: list[float] = []
    # In a thread of its own, because the number of threads is set for one.
    thread = threading.Thread(target=lambda: gains.append(_measured_gain(stored)))
    thread.start()
    thread.join()
    return gains[0]


def _measured_gain(stored: torch.dtype) -> float:
    torch.set_num_threads(1)  # so that the thread's own time is all of it, whatever else runs
    return _seconds(stored) / _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    rows, weight = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    best = float("inf")
    for _ in range(4):  # the first one also sets up
        begun = time.thread_time()
        F.linear(rows, weight)
        best = min(best, time.thread_time() - begun)
    return best


def _is_plain(model: nn.Module) -> bool:
    """Are all weights floating-point numbers of PyTorch's own (not quantized)?"""
    return getattr(model, "hf_quantizer", None) is None and all(
        p.is_floating_point() and p.itemsize >= 2 for p in model.parameters()
    )


def many_rows(model: nn.Module, rows: int | None = None) -> AbstractContextManager:
    """Context in which passes of `model` over many rows compute in `compute_dtype`.

    `rows` is how many tokens a pass has, where that is known: few of them are computed as stored.
    The context belongs to the thread that enters it; other threads may run the same model.
    """
    if getattr(_active, "depth", 0) or (rows is not None and rows <= _FEW_ROWS):
        return nullcontext()
    stored = compute_dtype(model) == stored_dtype(model)
    return nullcontext() if stored else _kept_copies(model)


@contextmanager
def _kept_copies(model: nn.Module) -> Iterator[None]:
    size = sum(p.numel() for p in model.parameters()) * 4
    with Float32(keep=size <= main_memory().free * _SHARE):
        yield


class Float32(TorchFunctionMode):
    """Converts halves to float32 before matrix products, and embeddings after the look-up.

    What follows from them is float32 as well, so results are those of a float32 copy of the model.
    With `keep`, converted weights stay in memory until the context ends; otherwise each is
    converted again for every product, which takes memory for one weight at a time.
    """

    def __init__(self, keep: bool = False) -> None:
        super().__init__()
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = {} if keep else None

    def __enter__(self) -> Float32:
        _active.depth = getattr(_active, "depth", 0) + 1
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        _active.depth -= 1
        super().__exit__(*exception)
        if self._kept is not None:
            self._kept.clear()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == _DTYPE:  # for code that converts hidden states to the dtype of a weight
            dtype = func(*args)
            return torch.float32 if dtype in _HALVES else dtype
        if func in _LOOKUPS:
            return self._float(func(*args, **kwargs))
        if func in _PRODUCTS:
            args = [self._float(value) for value in args]
            kwargs = {name: self._float(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _float(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._float, value)) if type(value) in (list, tuple) else value
        if not isinstance(value, torch.Tensor) or value.dtype not in _HALVES:
            return value
        if self._kept is None or not isinstance(value, nn.Parameter):
            return value.float()
        if value.requires_grad:  # changes between steps, and its copy belongs to this step's graph
            return value.float()
        if id(value) not in self._kept:  # the original is held too, so that its id stays its own
            self._kept[id(value)] = (value, value.float())
        return self._kept[id(value)][1]
