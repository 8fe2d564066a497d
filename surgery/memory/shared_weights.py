"""Make models over shared weights read-only, and copy them.

The weights are in memory once, for the base and all its patients. Every module of such a model gets
a subclass of its own class, with the same name, that refuses changes to the weights.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from surgery.errors import Refused, SurgeryError

from .devices import HEADROOM, free_on, gigabytes
from .out_of_memory import memory_explained


def share(model: PreTrainedModel) -> PreTrainedModel:
    """Make a model read-only: it refuses to change or save its weights. Returns the model."""
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                parameter.requires_grad_(False)
        # As `module.__class__ = …` would, past the search for parameters in Module.__setattr__.
        guarded = _guarded(type(module))  # type: ignore[arg-type]  # a class is hashable
        object.__setattr__(module, "__class__", guarded)
    return model


def unshare(model: PreTrainedModel) -> PreTrainedModel:
    """Undo `share`, for code that knows which parameters are shared. Returns the model."""
    for module in model.modules():
        module.__class__ = getattr(type(module), "_unguarded", type(module))
    return model


def copied(model: PreTrainedModel) -> PreTrainedModel:
    """Return an independent copy on the same device. It shares no memory with the base, nor between
    its layers; tied embeddings stay tied. Raises `SurgeryError` if there is not enough memory."""
    need: dict[torch.device, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        need[tensor.device] = need.get(tensor.device, 0) + tensor.nbytes
    for device, size in need.items():
        free = free_on(device)
        if size > free * HEADROOM:
            raise SurgeryError(
                f"A copy of this model needs {gigabytes(size)} on {device}, and "
                f"{gigabytes(free)} are free. Close other programs, or save a checkpoint and load "
                "it on a machine with more memory."
            )
    with memory_explained("Close other programs, or save a checkpoint instead."):
        return copy.deepcopy(model)


if TYPE_CHECKING:
    _Module = nn.Module
else:
    _Module = object  # a mixin for subclasses of nn.Module


class _Guard(_Module):
    """Overrides of the methods that change or save a model or its modules."""

    _unguarded: type[nn.Module]

    def _apply(self, fn, recurse: bool = True):  # called by .to, .half, .cuda and so on
        with torch.no_grad():
            if any(fn(p) is not p for p in self.parameters(recurse)):
                _refuse("Changing the dtype or device")
        return self  # no change

    def train(self, mode: bool = True):
        return _refuse("Training") if mode else super().train(False)

    def requires_grad_(self, requires_grad: bool = True):
        return _refuse("Training") if requires_grad else self

    def __setattr__(self, name: str, value) -> None:
        if isinstance(value, nn.Module) and self._modules.get(name) is not value:
            _refuse("Replacing modules (as adapters and quantization do)")
        super().__setattr__(name, value)

    def __deepcopy__(self, memo: dict) -> nn.Module:
        twin = object.__new__(self._unguarded)
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        for parameter in twin._parameters.values():
            if parameter is not None and parameter.is_floating_point():
                parameter.requires_grad_(True)
        return twin

    def __reduce_ex__(self, protocol):
        _refuse("Pickling (or copy.copy)")


def _refusal(name: str):
    def method(self, *args, **kwargs):
        _refuse(f"{name}()")

    return method


for _name in (
    "add_adapter",
    "apply",
    "init_weights",
    "load_adapter",
    "load_state_dict",
    "push_to_hub",
    "resize_token_embeddings",
    "save_pretrained",
):
    setattr(_Guard, _name, _refusal(_name))


def _refuse(what: str):
    raise Refused(
        f"{what} is not possible here: the base and all its patients share this model's weights. "
        "Make an independent copy first, with patient.copy() or copy.deepcopy(base.model)"
        + ("; base.save(plan, folder) writes a checkpoint." if "save" in what else ".")
    )


@functools.cache
def _guarded(cls: type[nn.Module]) -> type[nn.Module]:
    if issubclass(cls, _Guard):
        return cls
    # Keep the name and module of the class: transformers looks up models by them.
    same = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "_unguarded": cls}
    metaclass: type[type] = type(cls)
    return metaclass(cls.__name__, (_Guard, cls), same)
