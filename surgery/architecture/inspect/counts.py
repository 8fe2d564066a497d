"""Count parameters, cache and compute of each layer, from shapes alone.

A base is counted once; previewing a plan is then addition. Reads no weights.
"""

from __future__ import annotations

import re
from collections import Counter

import torch
from torch import nn

from surgery.architecture.inspect.layer_list import embedding_table, layer_list
from surgery.counts import Count, Counts, LayerPart, Layouts, Shared
from surgery.progress import alive

from .anatomy import Anatomy
from .kv_cache import cached_values

_ATTENTION = re.compile(r"attn|attention|mixer|linear_attn|mamba|conv|recurrent", re.I)
_MLP = re.compile(r"mlp|feed_forward|ffn|fc\d|gate|router|moe|dense", re.I)
_ACTIVE_FIELDS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "moe_top_k",
    "top_k_experts",
    "moe_k",
)


def count(base: Anatomy) -> Counts:
    """Count a base's layers and what lies outside them."""
    depth = base.stack.depth
    owners = _owners(base)
    layers = [Count(Counter()) for _ in range(depth)]
    outside = Count(Counter())
    totals: dict[int | None, list[int]] = {}
    users = _users(base)
    shared: list[Shared] = []
    seen: set[tuple[int, int | None]] = set()
    table_values = 0
    for name, parameter in base.model.named_parameters(remove_duplicate=False):
        alive()
        where = base.layer_of(name)
        place = where[1] if where else None
        places = users[id(parameter)]
        if (id(parameter), place) in seen or (place is not None and None in places):
            continue  # tied: counted where it is used first
        first = not any((id(parameter), p) in seen for p in places)
        seen.add((id(parameter), place))
        component, module = owners[name]
        size = parameter.numel()
        share = _active_share(base, name, component, parameter)
        if component == "towers":
            share = 0.0  # text does not pass through them
        is_matrix = parameter.dim() >= 2 and not isinstance(module, nn.Embedding)
        if name in base.tables:  # every layer uses its part
            dim, block = base.tables[name]
            part = size // parameter.shape[dim] * block
            table_values += part
            for layer in range(depth):
                tally = totals.setdefault(layer, [0, 0])
                tally[0] += int(part * share)
                tally[1] += 2 * int(part * share) if is_matrix else 0
            continue
        tally = totals.setdefault(place, [0, 0])
        if is_matrix:
            tally[1] += 2 * int(size * share)  # multiplied with in every layer that uses it
        if len(places) > 1 and None not in places:
            if first:
                shared.append(
                    Shared(size, component, frozenset(p for p in places if p is not None))
                )
            continue
        tally[0] += int(size * share)
        target = outside if place is None else layers[place]
        target.parameters[component] += size
    if _head_is_tied(base):
        # The table is looked up on the way in and multiplied with on the way out.
        totals[None][1] += 2 * embedding_table(base.model).numel()
    cache = cached_values(base)

    def finished(c: Count, place: int | None) -> Count:
        active, flops = totals.get(place, (0, 0))
        kept = cache[place] if cache and place is not None else 0
        return Count(c.parameters, active, flops, kept)

    return Counts(
        finished(outside, None),
        tuple(finished(c, i) for i, c in enumerate(layers)),
        table_values,
        tuple(shared),
        cache is not None,
    )


def layouts(base: Anatomy) -> Layouts:
    """Find what each layer consists of. A parameter that several layers share is part of each."""
    owners = _owners(base)
    times: list[Counter] = [Counter() for _ in range(base.stack.depth)]
    for name, parameter in base.model.named_parameters(remove_duplicate=False):
        alive()
        if (where := base.layer_of(name)) is None:
            continue
        path, layer, rest = where
        if path != base.stack.paths[0]:
            rest = f"{path.rpartition('.')[2]}.{rest}"
        folded = re.sub(r"\.\d+(?=\.)", ".*", rest)
        times[layer][folded, owners[name][0], tuple(parameter.shape)] += 1
    layers = [
        tuple(LayerPart(part, kind, shape, n) for (part, kind, shape), n in one.items())
        for one in times
    ]
    distinct = tuple(dict.fromkeys(layers))
    return Layouts(distinct, tuple(map(distinct.index, layers)))


def _users(base: Anatomy) -> dict[int, set[int | None]]:
    """{parameter's id: the layers that have it, None for outside}."""
    result: dict[int, set[int | None]] = {}
    for name, parameter in base.model.named_parameters(remove_duplicate=False):
        where = base.layer_of(name)
        result.setdefault(id(parameter), set()).add(where[1] if where else None)
    return result


def _owners(base: Anatomy) -> dict[str, tuple[str, nn.Module]]:
    """{parameter's name: (component, module that holds it)}."""
    model = base.model
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    body = {id(p) for p in model.base_model.parameters()}
    result = {}
    for path, module in model.named_modules():
        for leaf in module._parameters:
            name = f"{path}.{leaf}" if path else leaf
            if module is outputs or (outputs is None and id(module._parameters[leaf]) not in body):
                component = "head"
            elif base.is_tower(name):
                component = "towers"
            elif module is inputs or isinstance(module, nn.Embedding):
                component = "embedding"
            elif "norm" in type(module).__name__.lower():
                component = "norms"
            else:
                component = _component(base, name)
            result[name] = (component, module)
    return result


def _component(base: Anatomy, name: str) -> str:
    where = base.layer_of(name)
    path = where[2] if where else name
    if re.search(r"norm|(^|\.)ln_", path):
        return "norms"
    if "expert" in path:
        return "experts"
    for pattern, component in ((_ATTENTION, "attention"), (_MLP, "mlp")):
        if pattern.search(path):
            return component
    return "other"


def _head_is_tied(base: Anatomy) -> bool:
    head, table = base.model.get_output_embeddings(), base.model.get_input_embeddings()
    return head is not None and table is not None and head.weight is table.weight


def _active_share(base: Anatomy, name: str, component: str, parameter: torch.Tensor) -> float:
    """The share of a parameter that one token passes through: below 1 for routed experts."""
    if component != "experts" or "shared" in name:
        return 1.0
    text = base.config.get_text_config(decoder=True)
    chosen = next((v for k in _ACTIVE_FIELDS if isinstance(v := getattr(text, k, None), int)), None)
    if chosen is None:
        return 1.0
    m = re.match(r"(.*experts)\.\d+\.", name)  # one module an expert, or all packed into one tensor
    total = len(layer_list(base.model, m[1])) if m else parameter.shape[0]
    return min(1.0, chosen / total)
