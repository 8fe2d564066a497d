"""Weights of one module after another on an accelerator, the next copied while this one runs.

So layers that don't all fit into an accelerator's memory can still run there: two of them fit.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import nn


class LayerCopies:
    """Copies of parameters and buffers on `device`, by name, for `torch.func.functional_call`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._copier = ThreadPoolExecutor(1, "layer-copies")
        self._made: dict[nn.Module, Future[dict[str, torch.Tensor]]] = {}

    def of(self, module: nn.Module, following: nn.Module) -> dict[str, torch.Tensor]:
        """The copies for a module. Begins to copy the one that follows, and drops all others.
        Raises `RuntimeError` if there is not enough memory."""
        tensors = self._begin(module).result()
        for other in self._made.keys() - {module, following}:
            del self._made[other]
        self._begin(following)
        if self.device.type == "cuda":  # not to be overwritten while kernels still read them
            for tensor in tensors.values():
                tensor.record_stream(torch.cuda.current_stream(self.device))
        return tensors

    def _begin(self, module: nn.Module) -> Future[dict[str, torch.Tensor]]:
        if module not in self._made:
            named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            self._made[module] = self._copier.submit(self._copy, named)
        return self._made[module]

    @torch.no_grad()
    def _copy(self, named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.device.type != "cuda":
            return {name: tensor.to(self.device, copy=True) for name, tensor in named.items()}
        stream = torch.cuda.Stream(self.device)  # copies don't wait for what is computed
        with torch.cuda.stream(stream):
            copies = {name: tensor.to(self.device) for name, tensor in named.items()}
        stream.synchronize()
        return copies
