"""Preview a plan: parameters, bytes, KV cache and FLOPs, by arithmetic alone. Reads no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .counts import COMPONENTS, Counts, StoredBytes
from .plan import Plan

if TYPE_CHECKING:
    from .model import Model


@dataclass(frozen=True)
class Preview:
    """The patient in numbers.

    `parameters` equals what the saved checkpoint counts when it is loaded again, tied weights once.
    `active_parameters` are those used for one text token: fewer than all for mixtures of experts
    and for models with vision or audio towers.
    `bytes` are those of the tensors that a save writes, in the base's dtypes. `kv_bytes_per_token`
    is what the KV cache grows by for each token, in the dtype that the base computes in, as long as
    no sliding window is full; None where not known. `flops_per_token` are the forward FLOPs of the
    matrix products for one token, two per weight; attention over the context comes on top.
    `by_component` splits `parameters`.
    """

    layers: int
    parameters: int
    active_parameters: int
    bytes: int
    kv_bytes_per_token: int | None
    flops_per_token: int
    by_component: Mapping[str, int]


def preview_of(model: Model, plan: Plan) -> Preview:
    """Preview a plan of this model, from its counts and the sizes of its stored tensors."""
    return preview(model.counts, plan, model.torch_dtype.itemsize, model.stored_bytes)


def preview(
    counts: Counts, plan: Plan, bytes_per_value: int, stored: StoredBytes | None
) -> Preview:
    """Add up a plan.

    `bytes_per_value` is the size of one weight in memory, such as 2 for bfloat16. Without `stored`
    bytes are parameters times that.
    """
    uses = Counter(plan.sources)
    components = Counter(counts.outside.parameters)
    active, flops = counts.outside.active, counts.outside.flops
    cache = 0
    for source, times in uses.items():
        layer = counts.layers[source]
        for component, size in layer.parameters.items():
            components[component] += size * times
        active += layer.active * times
        flops += layer.flops * times
        cache += layer.cache * times
    for block in counts.shared:
        if not block.layers.isdisjoint(uses):
            components[block.component] += block.size
            active += block.size
    if counts.per_layer_tables:
        components["embedding"] += counts.per_layer_tables * len(plan)
    parameters = components.total()
    size = parameters * bytes_per_value
    if stored:
        size = stored.outside + sum(stored.layers[i] * times for i, times in uses.items())
        for shared, home, others in stored.passed_on:
            if home not in uses and not uses.keys().isdisjoint(others):
                size += shared
    return Preview(
        layers=len(plan),
        parameters=parameters,
        active_parameters=active,
        bytes=size,
        kv_bytes_per_token=cache * bytes_per_value if counts.cache_known else None,
        flops_per_token=flops,
        by_component={name: components[name] for name in COMPONENTS if components[name]},
    )
