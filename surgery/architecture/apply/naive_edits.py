"""Common mistakes in notebooks that change a model's depth, made on purpose for the lesson.

Each acts on a patient's own skeleton. The base's modules and parameters are not touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from surgery.architecture.inspect.anatomy import Anatomy
from surgery.architecture.inspect.layer_list import layer_list
from surgery.architecture.inspect.module_diff import INDEX_FIELDS
from surgery.errors import Refused


def forget_final_norm(base: Anatomy, new: PreTrainedModel) -> None:
    """Leave the norm after the last layer of `new` as it is initialised (ones, for RMSNorm),
    instead of the base's. Raises `Refused` if there is none, or if transformers doesn't define how
    it is initialised."""
    norm = _final_norm(base, new)
    vars(norm)["_is_hf_initialized"] = False
    for name, old in list(norm.named_parameters(recurse=False)):
        fresh = torch.full_like(old, torch.nan)  # so that values which stay unset are noticed
        norm._parameters[name] = nn.Parameter(fresh, old.requires_grad)
    with torch.no_grad():
        new._init_weights(norm)
    if not all(p.isfinite().all() for p in norm.parameters()):
        raise Refused("transformers does not say how the final norm of this model begins.")


def keep_old_indices(base: Anatomy, new: PreTrainedModel, sources: Sequence[int]) -> int:
    """Give every layer of `new` the index that it has in the base, where layer `sources[p]` is now
    at position p. Returns how many modules have a wrong index."""
    wrong = 0
    for path in base.stack.paths:
        old_layers, new_layers = layer_list(base.model, path), layer_list(new, path)
        for position, source in enumerate(sources):
            was = dict(old_layers[source].named_modules())
            for name, module in new_layers[position].named_modules():
                for field in INDEX_FIELDS:
                    index = getattr(was[name], field, None)
                    if type(index) is int and getattr(module, field, index) != index:
                        setattr(module, field, index)
                        wrong += 1
    return wrong


def _final_norm(base: Anatomy, new: PreTrainedModel) -> nn.Module:
    """The norm beside the stack of layers; the last one if there are several."""
    parent = new.get_submodule(base.stack.paths[0].rpartition(".")[0])
    norms = [m for m in parent.children() if "norm" in type(m).__name__.lower()]
    if not norms or not list(norms[-1].parameters()):
        raise Refused("This model has no norm of its own behind its last layer.")
    return norms[-1]
