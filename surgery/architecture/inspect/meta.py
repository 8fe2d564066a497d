"""Build models on the meta device, and run them for shapes and types without values.

Gets a forward pass past the places where a model's code asks for a value.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from surgery.progress import alive

from .modules import modules_by_name

SHORT = 3  # tokens, of the shortest pass


def run(model: PreTrainedModel, length: int, use_cache: bool):
    """Run a forward pass over `length` tokens on the meta device, and return its output. The model
    must not be in use elsewhere. A model that can't do without an image is given one.

    Raises anything that a model's code may raise where it needs a value.
    """
    ids = torch.zeros(1, length, dtype=torch.long, device="meta")
    # Some models keep a state on their modules (RecurrentGemma), which must not stay behind.
    before = [
        (store, dict(store))
        for m in modules_by_name(model).values()
        for store in (vars(m), m._buffers)
    ]
    try:
        with torch.no_grad(), _Guess():
            return model(input_ids=ids, use_cache=use_cache, **_required(model, ids))
    finally:
        for store, kept in before:
            store.clear()
            store.update(kept)


def _required(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Arguments besides `input_ids` for which the forward pass has no default: an image, and other
    texts (BLIP-2 and InstructBLIP)."""
    result = {}
    for name, parameter in inspect.signature(model.forward).parameters.items():
        required = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if not required or parameter.default is not parameter.empty or name == "input_ids":
            continue
        if name == "pixel_values":
            vision = getattr(model.config, "vision_config", model.config)
            side, channels = vision.image_size, getattr(vision, "num_channels", 3)
            result[name] = torch.zeros(1, channels, side, side, device="meta")
        elif name.endswith("input_ids"):
            result[name] = ids
    return result


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
        return _remembered(func, args, kwargs or {})


# {an operation and what it was called with: shape, stride and type of what it returned}. It takes
# torch up to a millisecond to work that out, and the layers of a model do the same over and over.
_returned: dict[Hashable, tuple[torch.Size, tuple[int, ...], torch.dtype]] = {}
_MOST = 10_000


def _remembered(func, args, kwargs):
    if not _makes_one_tensor(func):
        return func(*args, **kwargs)
    key = (func, _described(args), _described(kwargs))
    if known := _returned.get(key):
        shape, stride, dtype = known
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    result = func(*args, **kwargs)
    if result.is_meta:
        if len(_returned) >= _MOST:
            _returned.clear()
        _returned[key] = result.shape, result.stride(), result.dtype
    return result


@cache
def _makes_one_tensor(func) -> bool:
    """Whether an operation returns one tensor, and neither changes nor returns a part of what it is
    called with."""
    schema = func._schema
    return [str(x.type) for x in schema.returns] == ["Tensor"] and not any(
        x.alias_info for x in (*schema.arguments, *schema.returns)
    )


def _described(value: Any) -> Hashable:
    """All that counts of an argument. A number goes with its type, since 1, 1.0 and True are
    equal."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (tuple, list)):
        return tuple(map(_described, value))
    if isinstance(value, dict):
        return tuple((name, _described(x)) for name, x in value.items())
    return type(value), value
