"""The Taylor score of layers: weights times gradients (as in Shortened LLaMA, arXiv 2402.02834)."""

from __future__ import annotations

import numpy as np
import torch

from surgery.architecture.inspect.hooks import layers_of, states_refused
from surgery.errors import SurgeryError, one_line
from surgery.memory.devices import HEADROOM, free_on, gigabytes
from surgery.memory.out_of_memory import memory_explained, memory_message
from surgery.plan import Plan

from .forward_cache import ForwardRunner

_OTHERS = "The other scores need no gradients."


def taylor(runner: ForwardRunner, forwards: int) -> np.ndarray:
    """Σ |w · ∂L/∂w| over the weights of every layer, L the mean loss over the sample: (layers,).

    The gradients of all layers are in memory at once, as much as their weights. They are computed
    for a patient's parameters, not the base's. A layer with its gradients counts as `forwards`
    layer-forwards. Raises `SurgeryError` if memory is short.
    """
    base, sample = runner.base, runner.sample
    model = base.operate(Plan.whole(base.depth)).model
    layers = layers_of(base.anatomy, model)
    if layers is None:
        raise states_refused()
    weights = list(dict.fromkeys(w for layer in layers for w in layer.parameters()))
    weights = [w for w in weights if w.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    needs: dict[torch.device, int] = {}
    for weight in weights:
        needs[weight.device] = needs.get(weight.device, 0) + weight.nbytes
    for device, need in needs.items():
        if need * 2 > (free := free_on(device)) * HEADROOM:
            raise SurgeryError(
                f"Taylor needs the gradients of all layers: {gigabytes(need * 2)}, and "
                f"{gigabytes(free)} are free on {device}. {_OTHERS}"
            )
    with memory_explained(_OTHERS):
        gradients = [torch.zeros_like(w) for w in weights]
    for batch in runner.batches:
        for row in runner.ids(batch).split(1):
            try:
                with torch.enable_grad(), runner.counting(layers, row, forwards):
                    logits = model(input_ids=row, use_cache=False).logits
                    loss = torch.nn.functional.cross_entropy(
                        logits[0, :-1].float(), row[0, 1:].to(logits.device), reduction="sum"
                    )
                    part = torch.autograd.grad(loss / sample.tokens, weights, allow_unused=True)
            except RuntimeError as error:  # code without a backward pass, no memory left
                raise SurgeryError(
                    memory_message(error, _OTHERS)
                    or f"Taylor needs gradients, and this model gives none: {one_line(error, 200)}"
                ) from error
            for total, gradient in zip(gradients, part, strict=True):
                if gradient is not None:
                    total += gradient
    size = {
        id(w): float((w.detach() * gradient).abs().sum(dtype=torch.float32))
        for w, gradient in zip(weights, gradients, strict=True)
    }
    return np.array([sum(size.get(id(w), 0.0) for w in set(x.parameters())) for x in layers])
