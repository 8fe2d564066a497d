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

    The gradients of all layers are in memory at once, and their sums over the sample in float32.
    They are computed for a patient's parameters, not the base's. A layer with its gradients counts
    as `forwards` layer-forwards. Raises `SurgeryError` if memory is short.
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
    # Where halves are computed in float32, the graph holds a copy of every weight too.
    copied = 4 if base.compute_dtype != base.dtype else 0
    needs: dict[torch.device, int] = {}
    for weight in weights:
        need = weight.nbytes + weight.numel() * (torch.float32.itemsize + copied)
        needs[weight.device] = needs.get(weight.device, 0) + need
    for device, need in needs.items():
        if need > (free := free_on(device)) * HEADROOM:
            raise SurgeryError(
                f"Taylor needs the gradients of all layers: {gigabytes(need)}, and "
                f"{gigabytes(free)} are free on {device}. {_OTHERS}"
            )
    with memory_explained(_OTHERS):
        sums = [torch.zeros_like(w, dtype=torch.float32) for w in weights]
    for batch in runner.batches:
        for row in runner.ids(batch).split(1):
            try:
                with torch.enable_grad(), runner.counting(layers, row, forwards):
                    logits = model(input_ids=row, use_cache=False).logits
                    loss = torch.nn.functional.cross_entropy(
                        logits[0, :-1].float(), row[0, 1:].to(logits.device), reduction="sum"
                    )
                    # Of the sum, and divided at the end: in float16 the mean's would underflow.
                    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            except RuntimeError as error:  # code without a backward pass, no memory left
                raise SurgeryError(
                    memory_message(error, _OTHERS)
                    or f"Taylor needs gradients, and this model gives none: {one_line(error, 200)}"
                ) from error
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total += gradient
            del gradients  # before the next ones are computed
    size = {
        id(w): float((w.detach() * total).abs().sum())
        for w, total in zip(weights, sums, strict=True)
    }
    by_layer = [sum(size.get(id(w), 0.0) for w in layer.parameters()) for layer in layers]
    return np.array(by_layer) / sample.tokens
