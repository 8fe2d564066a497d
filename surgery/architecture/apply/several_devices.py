"""Let a model run whose weights are spread over several devices.

The base that transformers spread has hooks of accelerate's for that, and a patient's new skeleton
has none. So each part of it moves what it is called with to where its own weights are: every layer
as a whole, and every module outside the layers that has weights or buffers of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from surgery.architecture.inspect.anatomy import Anatomy
from surgery.architecture.inspect.layer_list import layer_list
from surgery.architecture.inspect.modules import modules_by_name


def devices_of(model: nn.Module) -> set[torch.device]:
    """The devices that hold its parameters."""
    modules = modules_by_name(model).values()
    return {p.device for m in modules for p in m._parameters.values() if p is not None}


def run_on_several(base: Anatomy, model: PreTrainedModel) -> None:
    """Add the hooks, to a model of this base whose weights are on several devices."""
    paths = base.stack.paths
    layers = {f"{path}.{p}" for path in paths for p in range(len(layer_list(model, path)))}
    for name, module in model.named_modules():
        own = chain(module.parameters(recurse=False), module.buffers(recurse=False))
        if name in layers or (base.layer_of(f"{name}.") is None and any(True for _ in own)):
            module.register_forward_pre_hook(_brought_here, with_kwargs=True)


def _brought_here(
    module: nn.Module, args: tuple, kwargs: Mapping[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """What a module is called with, on the device of its first parameter or buffer."""
    first = next(chain(module.parameters(), module.buffers()), None)
    if first is None:
        return args, dict(kwargs)
    return tree_map_only(torch.Tensor, lambda x: x.to(first.device), (args, dict(kwargs)))
