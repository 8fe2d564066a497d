"""How a layer's tensors begin where the plan asks for something else than a copy.

Used by the patient in memory and by the checkpoint on disk alike, so that both do the same sums in
the same dtype. Knows which tensors are a layer's output projections; knows no files and no models.
"""

from __future__ import annotations

import re

import torch

from ..errors import Refused
from ..plan import Init, Plan
from .anatomy import Anatomy

# The last matrix of attention and of the MLP (or of each expert): what a layer adds to the
# residual stream is its output, so zeroing these makes the layer the identity.
OUTPUT_PROJECTIONS = ("o_proj", "down_proj", "c_proj", "w2")
_OUTPUT = re.compile(rf"(^|\.)({'|'.join(OUTPUT_PROJECTIONS)})(\.(weight|bias))?$")


def check_supported(base: Anatomy, plan: Plan) -> None:
    """Raises `Refused` for ways to begin that can't be promised."""
    for layer in plan.layers:
        if layer.init.kind == "scale" and _normalised_outputs(base, layer.source):
            raise Refused(
                f"{layer.init} has no effect here: this model normalises what each layer adds, "
                "which undoes the scaling. Use @identity or @copy."
            )
        if layer.base:
            raise Refused("Layers of a second base can't be stacked yet: use one base.")
        if layer.init.kind not in ("copy", "identity", "scale"):
            raise Refused(
                f"@{layer.init.kind} can't be done yet: use @copy, @identity or @scale=0.5."
            )


def _normalised_outputs(base: Anatomy, layer: int) -> bool:
    """Does a norm follow the output projections (Gemma 2 and 3)?"""
    module = base.model.get_submodule(base.stack.paths[0])[layer]
    return any("post_feedforward" in name for name, _ in module.named_children())


def changes(rest: str, init: Init) -> bool:
    """Does a layer's tensor called `rest` (without the layer's own prefix) begin otherwise?"""
    return init.kind in ("identity", "scale") and bool(_OUTPUT.search(rest))


def begin(tensor: torch.Tensor, init: Init) -> torch.Tensor:
    """A new tensor, of the same shape and dtype, for one that `changes`."""
    if init.kind == "identity":
        return torch.zeros_like(tensor)
    return tensor.detach() * init.factor
