"""Recognise errors of memory that ran out, explain them, and free what the failed work held."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from surgery.errors import SurgeryError

# PyTorch has a class of its own for CUDA alone.
_SIGNS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
_GPU = ("CUDA", "CUBLAS", "MPS", "HIP")
_SIZE = re.compile(r"[Tt]ried to allocate ([\d.]+ ?[KMG]i?B)")


def memory_message(error: BaseException, advice: str) -> str:
    """What to tell a person if memory ran out, ending with `advice`; empty for other errors.

    Tensors that the error's frames still hold are freed: whoever keeps the error would keep them.
    """
    text = str(error)
    gpu = isinstance(error, torch.OutOfMemoryError) or any(word in text for word in _GPU)
    if not (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or (isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS))
    ):
        return ""
    traceback.clear_frames(error.__traceback__)
    size = f" ({found[1]} more were needed)" if (found := _SIZE.search(text)) else ""
    return f"{'The GPU' if gpu else 'The computer'} ran out of memory{size}. {advice}"


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Raise `SurgeryError` with a message that ends with `advice` where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if message := memory_message(error, advice):
            raise SurgeryError(message) from error
        raise
