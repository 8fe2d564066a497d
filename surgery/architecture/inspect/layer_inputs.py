"""Record each layer's inputs in a meta-device forward pass, and compare them between two models.

The code between the layers may depend on a layer's position, too: to pick its mask or its rotary
embedding, to skip it, or to pass on what earlier layers left. That shows in the shapes and types of
the inputs, and in which layers are given the very same object.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only
from transformers import PreTrainedModel

from surgery.architecture.inspect.layer_list import layer_list

from .meta import run

LayerInputs = dict[int, dict[str, Any]]  # {layer: {where: value}}
_TOKENS = 5


def layer_outputs(model: PreTrainedModel, path: str) -> list[Any] | None:
    """Record what each layer at `path` returns, None for one that isn't called. None in all if the
    model can't run on meta."""
    layers = layer_list(model, path)
    out: list[Any] = [None] * len(layers)
    with contextlib.ExitStack() as hooks:
        for i, layer in enumerate(layers):
            hook = layer.register_forward_hook(lambda _, __, x, i=i: out.__setitem__(i, x))
            hooks.enter_context(hook)
        try:
            run(model, _TOKENS, use_cache=False)
        except Exception:  # whatever a model's code may trip over without memory
            return None
    return out


def layer_inputs(model: PreTrainedModel, path: str, returns: Sequence[Any]) -> LayerInputs | None:
    """Record what each layer at `path` is called with, by layer; layers that aren't called are left
    out. None if the loop doesn't run or calls a layer twice.

    Layers don't run: layer p returns `returns[p]`, which makes the pass cheap.
    """
    result: LayerInputs = {}
    layers = layer_list(model, path)
    returns = [tree_map_only(torch.Tensor, _empty_like, value) for value in returns]

    def stand_in(index):
        def forward(*args, **kwargs):
            if index in result:
                raise RuntimeError("a layer is called twice")
            result[index] = {keystr(p): x for p, x in tree_flatten_with_path((args, kwargs))[0]}
            return returns[index]

        return forward

    try:
        for i, layer in enumerate(layers):
            layer.forward = stand_in(i)
        run(model, _TOKENS, use_cache=False)
    except Exception:  # a loop that needs values, or what a layer did besides returning something
        return None
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
    return result


def _empty_like(like: torch.Tensor) -> torch.Tensor:
    """What `torch.empty_like` returns, a hundred times as fast on meta."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)


def first_difference(old: LayerInputs, new: LayerInputs, sources: Sequence[int]) -> str | None:
    """Describe the first difference between the inputs of the new model's layers and of their
    sources; None if there is none."""
    indices = _indices(old)
    for p, i in enumerate(sources):
        if (p in new) != (i in old):
            return f"layer {i} is {'passed over' if i in old else 'run'} at position {p}"
        if p not in new:
            continue
        if new[p].keys() != old[i].keys():
            return f"layer {i} is called in another way at position {p}"
        for where, value in new[p].items():
            before = old[i][where]
            own = where in indices
            if _kind(value, p if own else None) != _kind(before, i if own else None):
                return (
                    f"layer {i} is handed {_words(before)} at {where} and, at position {p}, "
                    f"{_words(value)}"
                )
    return _regrouped(old, new, sources)


def _regrouped(old: LayerInputs, new: LayerInputs, sources: Sequence[int]) -> str | None:
    """Check that layers which shared a mask (a rotary embedding, …) still share it, and no others
    do."""
    users: dict[tuple[str, int], int] = {}
    for values in old.values():
        for where, value in values.items():
            users[where, id(value)] = users.get((where, id(value)), 0) + 1
    was: dict[tuple[str, int], int] = {}
    became: dict[tuple[str, int], int] = {}
    for p, i in enumerate(sources):
        for where, value in new.get(p, {}).items():
            if not isinstance(value, torch.Tensor):
                continue
            before = id(old[i][where])
            odd = was.setdefault((where, id(value)), before) != before
            if users[where, before] > 1:
                odd |= became.setdefault((where, before), id(value)) != id(value)
            if odd:
                return f"at position {p}, layer {i} is handed another layer's {where}"
    return None


def _indices(old: LayerInputs) -> set[str]:
    """Arguments in which every layer gets its own index."""
    return {
        where
        for where in next(iter(old.values()), {})
        if all(type(v.get(where)) is int and v[where] == i for i, v in old.items())
    }


def _kind(value: Any, position: int | None) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, (bool, str, float, type(None))):
        return value
    if isinstance(value, int):
        return "its position" if value == position else value
    return type(value)


def _words(value: Any) -> str:
    return f"{list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
