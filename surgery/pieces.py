"""What a checkpoint of a base and a plan consists of: its tensors, and where their bytes come from.

Knows the plan, the base's stored tensors and dtypes. Reads and writes nothing by itself: saving
writes pieces, verifying holds a finished checkpoint against them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .architecture import disk_names
from .architecture.initialise import begin, changes
from .errors import SaveError
from .plan import COPY, Init, Plan
from .source import Tensor
from .source.headers import BITS

if TYPE_CHECKING:
    from .base import Base

# What can be saved in: safetensors' name and torch's.
DTYPES = {
    "float32": ("F32", torch.float32),
    "float16": ("F16", torch.float16),
    "bfloat16": ("BF16", torch.bfloat16),
}
# Stored dtypes that a conversion or a change of the beginning applies to.
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class Piece:
    """A tensor of the new checkpoint: `size` bytes.

    Its bytes are the `stored` bytes at `start` in the base's `file`, as they are, or each value
    passed through `change`: a function of a stretch of values that gives as many.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    file: str
    start: int
    stored: int
    change: Callable[[bytearray], memoryview] | None = None
    copy: int = 0  # 0 for the first appearance of a stored tensor, 1 for the second, …

    @property
    def width(self) -> int:
        """Bits of one value."""
        return BITS[self.dtype]


def pieces(base: Base, plan: Plan, stored: dict[str, Tensor], dtype: str | None) -> list[Piece]:
    """Every tensor of the new checkpoint. Raises `Refused`, or `SaveError` for an unknown dtype."""
    if dtype is not None and dtype not in DTYPES:
        raise SaveError(f"“{str(dtype)[:40]}” is no dtype to save in: {', '.join(DTYPES)}.")
    seen: dict[str, int] = {}
    found = []
    for name, (old, position) in disk_names(base.anatomy, stored, plan.sources).items():
        tensor = stored[old]
        init = COPY if position is None else plan.layers[position].init
        if not changes(_behind_number(name), init):
            init = COPY
        convert = dtype is not None and tensor.dtype in _FLOATS and DTYPES[dtype][0] != tensor.dtype
        new = DTYPES[dtype][1] if convert else None
        size = tensor.end - tensor.start
        change = None
        if init != COPY or convert:
            change = _changed(_FLOATS[tensor.dtype], init, new)
        found.append(
            Piece(
                name,
                DTYPES[dtype][0] if convert else tensor.dtype,
                tensor.shape,
                math.prod(tensor.shape) * new.itemsize if convert else size,
                tensor.file,
                tensor.start,
                size,
                change,
                seen.get(old, 0),
            )
        )
        seen[old] = seen.get(old, 0) + 1
    return found


def _behind_number(name: str) -> str:
    return re.split(r"\.\d+\.|^\d+\.", name, maxsplit=1)[-1]


def _changed(old: torch.dtype, init: Init, new: torch.dtype | None):
    """Values begun otherwise, converted, or both: each by itself, so any stretch will do."""

    def change(values: bytearray) -> memoryview:
        tensor = torch.frombuffer(values, dtype=old)
        if init != COPY:
            tensor = begin(tensor, init)
        if new is not None:
            tensor = tensor.to(new)
        return tensor.contiguous().view(torch.uint8).numpy().data

    return change
