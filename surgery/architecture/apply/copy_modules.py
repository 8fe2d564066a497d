"""Copy a model's modules without running their constructors, which takes transformers longest."""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

# Values that can't change, so two models may hold the same one.
_CONSTANTS = (
    *(int, float, complex, bool, str, bytes, type(None), range, type, BuiltinFunctionType),
    *(torch.dtype, torch.device, torch.Size),
)
_CONSTANT_TYPES = frozenset(_CONSTANTS)
_COLLECTIONS = frozenset((dict, OrderedDict, list, tuple, set, frozenset))
_CONFIGS: tuple[type, ...] = (PreTrainedConfig, GenerationConfig)
# What torch gives every module: its hooks, and these.
_MACHINERY = frozenset(vars(nn.Module()))
_PARTS = frozenset(("_parameters", "_buffers", "_modules"))


def copy_modules(model: PreTrainedModel) -> PreTrainedModel | None:
    """Return another model with the same modules, attributes and configs, and with the same
    tensors in them. None if a module has an attribute that may lead back to `model`."""
    try:
        return _module(model, {})
    except _Unknown:
        return None


class _Unknown(Exception):
    """A value of which it isn't known what it refers to."""


def _module(module: Any, memo: dict[int, Any]) -> Any:
    """Copy a module and those in it; `memo` has what was copied before, by the original's id."""
    if id(module) in memo:  # a module at several places stays one
        return memo[id(module)]
    twin = memo[id(module)] = object.__new__(type(module))
    own = vars(module)
    state: dict[str, Any] = {}
    for key, value in own.items():
        kind = type(value)
        if kind in _CONSTANT_TYPES:
            state[key] = value
        elif key in _PARTS:
            state[key] = value.copy()
        elif key in _MACHINERY and not value:
            state[key] = kind()
        else:
            state[key] = _value(value, memo)
    children = state["_modules"]
    for name, child in children.items():
        if child is not None:
            children[name] = _module(child, memo)
    vars(twin).update(state)
    return twin


def _value(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if isinstance(value, _CONSTANTS) or (kind is FunctionType and not value.__closure__):
        return value
    if id(value) in memo:  # what modules share, they go on sharing
        return memo[id(value)]
    twin: Any
    if kind in (dict, OrderedDict):
        twin = kind((key, _value(x, memo)) for key, x in value.items())
    elif kind in _COLLECTIONS:
        twin = kind([_value(x, memo) for x in value])
    elif isinstance(value, _CONFIGS):
        twin = copy.deepcopy(value, memo)  # one copy for all modules, by the memo
    elif isinstance(value, nn.Module):
        return _module(value, memo)
    elif kind is partial:
        twin = partial(
            _value(value.func, memo),
            *[_value(x, memo) for x in value.args],
            **{key: _value(x, memo) for key, x in value.keywords.items()},
        )
    else:
        raise _Unknown
    memo[id(value)] = twin
    return twin
