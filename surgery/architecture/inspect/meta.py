"""Build models on the meta device, and run them for shapes and types without values.

Gets a forward pass past the places where a model's code asks for a value.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from surgery.progress import alive

SHORT = 3  # tokens, of the shortest pass


def run(model: PreTrainedModel, length: int, use_cache: bool):
    """Run a forward pass over `length` tokens on the meta device, and return its output. The model
    must not be in use elsewhere.

    Raises anything that a model's code may raise where it needs a value.
    """
    ids = torch.zeros(1, length, dtype=torch.long, device="meta")
    # Some models keep a state on their modules (RecurrentGemma), which must not stay behind.
    before = [(store, dict(store)) for m in model.modules() for store in (vars(m), m._buffers)]
    try:
        with torch.no_grad(), _Guess():
            return model(input_ids=ids, use_cache=use_cache)
    finally:
        for store, kept in before:
            store.clear()
            store.update(kept)


def cached_length(model: PreTrainedModel) -> int | None:
    """The length that the cache reports after three tokens; None if it can't be asked. Some models
    read it from the first layer, which may be one that caches nothing."""
    try:
        return int(run(model, SHORT, use_cache=True).past_key_values.get_seq_length())
    except Exception:  # no such cache, or no pass without memory
        return None


class Unfilled(TorchFunctionMode):
    """Build modules without initialising them, which has no effect without memory but takes a third
    of the time. In this thread only, unlike transformers' `no_init_weights`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        alive()
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class _Guess(TorchDispatchMode):
    """Answer what a model on meta asks about values: every number is 0, and no token is sent to an
    expert. Also multiplies groups in float32, for which torch has no meta kernel."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        alive()
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return 0
        if func is aten.nonzero.default and args[0].is_meta:
            return args[0].new_empty((0, args[0].dim()), dtype=torch.long)
        if func is aten._grouped_mm.default and args[0].is_meta:
            return args[0].new_empty((*args[0].shape[:-1], args[1].shape[-1]))
        return func(*args, **(kwargs or {}))
