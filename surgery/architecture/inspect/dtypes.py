"""Determine the dtype of each tensor after transformers has loaded a model.

Most tensors get the dtype in which the model is loaded. Some are created in a fixed dtype (Mamba's
`A_log`), and some classes keep tensors in float32. Changes to a stored tensor must be computed in
its dtype in memory, or the checkpoint and the patient would differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._pytree import tree_leaves
from transformers import modeling_utils
from transformers.core_model_loading import build_glob_alternation

from .anatomy import Anatomy, build_meta

# What these make is of the default dtype if none is named; drawn in another it has other values.
_FLOATS_UNASKED = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}


class _Default(TorchFunctionMode):
    """Set a default dtype for this thread only; torch's own default applies to the process.

    A float32 result counts as default if no argument asks for float32.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func in _FLOATS_UNASKED and (kwargs or {}).get("dtype") is None:
            kwargs = {**(kwargs or {}), "dtype": self.dtype}
        made = func(*args, **(kwargs or {}))
        if not isinstance(made, torch.Tensor) or made.dtype is not torch.float32:
            return made
        given = [getattr(x, "dtype", x) for x in tree_leaves((args, kwargs))]
        asked = torch.float32 in given or func is torch.Tensor.float
        return made if asked else made.to(self.dtype)


@contextmanager
def default_of_its_own() -> Iterator[None]:
    """Let transformers build models in their dtype without making it the default of the whole
    process, in which other threads compute. For one thread at a time."""
    of_process = torch.get_default_dtype

    def default() -> torch.dtype:  # XGLM asks for it
        modes = (m for m in _get_current_function_mode_stack() if isinstance(m, _Default))
        return next((mode.dtype for mode in modes), None) or of_process()

    with (
        mock.patch.object(torch, "get_default_dtype", default),
        mock.patch.object(
            modeling_utils, "local_torch_dtype", lambda dtype, name=None: _Default(dtype)
        ),
    ):
        yield


def loaded_dtypes(anatomy: Anatomy, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """{name in the model: dtype} after `from_pretrained(…, dtype=dtype)`."""
    with _Default(dtype):
        model = build_meta(anatomy.whole)
    result = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    if kept := model._get_dtype_plan(dtype):
        pattern, globs, _ = build_glob_alternation(list(kept))
        for name in result:
            match = pattern.search(name)
            if result[name].is_floating_point and match and match.lastgroup:
                result[name] = kept[globs[match.lastgroup]]
    return result
