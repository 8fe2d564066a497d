"""Compute in the dtype that a device multiplies fastest, whatever dtype the weights are stored in.

Many processors have no instructions for bfloat16 or float16: products of many rows take several
times as long as in float32. One row is limited by reading the weights and is fastest as stored. So
prompts, scores, comparisons and training compute in `compute_dtype`; decoding computes as stored.
Stored bytes, saved files and published counts don't change.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from surgery.memory.devices import register_cache

from .choice import compute_dtype_of, recall_gain, remember_gain
from .float32_copies import Copies

_HALVES = (torch.bfloat16, torch.float16)
_MEASURED = 0.1  # seconds of products: a thread's time may advance in steps of 1/64 s (Windows)
_FEW_ROWS = 8  # at most so many rows are read-bound, and fastest as stored

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
_copies = Copies()  # for all passes of this process
register_cache(_copies.drop)
_DTYPE = vars(torch._C.TensorBase)["dtype"].__get__


def compute_dtype(model: nn.Module) -> torch.dtype:
    """The dtype for products of many rows: float32, or the one the model's weights are stored in.

    It is the one chosen with `set_compute_dtype` or the environment variable
    `LAYER_SURGERY_COMPUTE_DTYPE`; unless one was, float32 where weights are stored in a half on a
    CPU that multiplies float32 clearly faster. Quantized weights compute as stored. Raises
    `SurgeryError` if the variable has a value that can't be chosen.
    """
    stored = stored_dtype(model)
    converts = stored in _HALVES and _is_plain(model)
    on_cpu = next(model.parameters()).device.type == "cpu"
    name = compute_dtype_of(dtype_name(stored), converts, on_cpu, float32_gain)
    assert name  # the gain is measured where it decides
    return getattr(torch, name)


def dtype_name(dtype: torch.dtype) -> str:
    """Such as “bfloat16”."""
    return str(dtype).removeprefix("torch.")


def stored_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of a model's weights: of the first that is a floating-point number."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def precise(tensor: torch.Tensor) -> torch.Tensor:
    """In float64, where the tensor is, or on the CPU if its device has none (Apple's GPU)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


@functools.cache
def float32_gain(stored: str) -> float:
    """How many times faster this machine's CPU multiplies float32 matrices than `stored` ones.

    Measured once, in tenths of a second, with 256 rows and a square matrix of 1,024, and kept for
    other processes.
    """
    gain = recall_gain(stored)
    if gain is None:
        gain = _measured_gain(stored)
        remember_gain(stored, gain)
    return gain


def _measured_gain(stored: str) -> float:
    gains: list[float] = []

    def measure() -> None:
        torch.set_num_threads(1)  # so that the thread's own time is all of it, whatever else runs
        gains.append(_seconds(getattr(torch, stored)) / _seconds(torch.float32))

    # In a thread of its own, because the number of threads is set for one.
    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    return gains[0]


def _seconds(dtype: torch.dtype) -> float:
    rows, weight = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    F.linear(rows, weight)  # the first one also sets up
    begun, spent, times = time.thread_time(), 0.0, 0
    while spent < _MEASURED:
        F.linear(rows, weight)
        spent, times = time.thread_time() - begun, times + 1
    return spent / times


def _is_plain(model: nn.Module) -> bool:
    """Are all weights floating-point numbers of PyTorch's own (not quantized)?"""
    return getattr(model, "hf_quantizer", None) is None and all(
        p.is_floating_point() and p.itemsize >= 2 for p in model.parameters()
    )


def many_rows(
    model: nn.Module, rows: int | None = None, copies_fit: bool = False
) -> AbstractContextManager:
    """Context in which passes of `model` over many rows compute in `compute_dtype`.

    `rows` is how many tokens a pass has, where that is known: few of them are computed as stored.
    `copies_fit` if the caller has checked that the memory holds float32 copies of the weights. The
    context belongs to the thread that enters it; other threads may run the same model.
    """
    if getattr(_active, "depth", 0) or (rows is not None and rows <= _FEW_ROWS):
        return nullcontext()
    stored = compute_dtype(model) == stored_dtype(model)
    return nullcontext() if stored else _with_copies(model, copies_fit)


def copied_bytes(model: nn.Module) -> int:
    """Bytes of float32 copies of weights that passes of `model` over many rows will make."""
    if compute_dtype(model) == stored_dtype(model):
        return 0
    return _copies.to_be_made(model)


@contextmanager
def _with_copies(model: nn.Module, fit: bool) -> Iterator[None]:
    with _copies.used(model, fit) as copies, Float32(copies):
        yield


class Float32(TorchFunctionMode):
    """Converts halves to float32 before matrix products, and embeddings after the look-up.

    What follows from them is float32 as well, so results are those of a float32 copy of the model.
    Converted weights are kept in `copies`; without, each is converted again for every product,
    which takes memory for one weight at a time.
    """

    def __init__(self, copies: Copies | None = None) -> None:
        super().__init__()
        self._copies = copies

    def __enter__(self) -> Float32:
        _active.depth = getattr(_active, "depth", 0) + 1
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        _active.depth -= 1
        super().__exit__(*exception)

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
        # A weight that is trained changes between steps; its copy belongs to the step's graph.
        if self._copies is None or not isinstance(value, nn.Parameter) or value.requires_grad:
            return value.float()
        return self._copies.of(value)
