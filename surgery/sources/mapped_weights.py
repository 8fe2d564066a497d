"""The stored weights that a model can use as they lie in their files.

On the CPU they take no memory of their own: the system reads them when they are used, and drops
them when memory runs short.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from surgery.architecture import Anatomy
from surgery.architecture.inspect.names import disk_layers, loader_names
from surgery.lazy_property import lazy_property

from . import Tensor
from .read_ahead import HEAD

# safetensors' names of dtypes that weights are computed in.
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


class MappedWeights:
    """Of the `stored` tensors of a model that computes in `dtype`, those that it has in the same
    dtype and shape."""

    def __init__(self, anatomy: Anatomy, stored: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self._anatomy, self._stored = anatomy, stored
        translate = loader_names(anatomy)
        self._names = {name: translate(name) for name in stored}
        self.tensors: Mapping[str, Tensor] = {
            name: tensor
            for name, tensor in stored.items()
            if (own := anatomy.tensors.get(self._names[name])) is not None
            and tuple(own.shape) == tuple(tensor.shape)
            and DTYPES.get(tensor.dtype) == dtype
        }

    @lazy_property
    def values(self) -> int:
        """The number of parameters in them; tied ones count once."""
        own = [self._anatomy.tensors[self._names[name]] for name in self.tensors]
        return sum(tensor.numel() for tensor in {id(one): one for one in own}.values())

    @lazy_property
    def by_layer(self) -> Mapping[int, list[Tensor]]:
        """Those of each layer, and under `HEAD` those of the model's head."""
        head = self._anatomy.model.get_output_embeddings()
        where = disk_layers(self._anatomy, self._stored)
        layers: dict[int, list[Tensor]] = {}
        for name, tensor in self.tensors.items():
            if place := where[name]:
                layers.setdefault(place[1], []).append(tensor)
            elif head is not None and self._anatomy.tensors[self._names[name]] is head.weight:
                layers.setdefault(HEAD, []).append(tensor)
        return layers
