"""Multiply few rows by a matrix on all cores of a CPU.

MKL gains nothing from a second core in a float32 product of fewer than about 60 rows. The same
product transposed, weight · rowsᵀ, does gain: it is 1.3 to 2 times as fast on two cores.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_FEWEST, _MOST = 12, 56  # rows for which it was faster on all shapes that were tried


def narrow_products(rows: int) -> AbstractContextManager:
    """Context in which `F.linear` of so many rows, in float32 on a CPU, is computed transposed if
    that is faster. Sums are added in another order, so results differ by rounding."""
    return _Transposed() if _FEWEST <= rows <= _MOST else nullcontext()


class _Transposed(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and not kwargs and _is_narrow(*args):
            return _transposed(*args)
        return func(*args, **(kwargs or {}))


def _is_narrow(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    rows = x.numel() // x.shape[-1]
    floats = x.dtype == weight.dtype == torch.float32
    return floats and x.device.type == "cpu" and _FEWEST <= rows <= _MOST


def _transposed(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    out = (weight @ x.flatten(0, -2).T).T.contiguous().view(*x.shape[:-1], len(weight))
    return out if bias is None else out + bias
