"""How a layer's tensors begin where the plan asks for something else than a copy.

Used by the patient in memory and by the checkpoint on disk alike, so that both do the same sums in
the same dtype. Knows tensors by their names within a layer; where they are read from and put to is
for others to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from surgery.architecture.config.rewrite import rewrite
from surgery.architecture.inspect.anatomy import Anatomy, build_meta
from surgery.architecture.inspect.identity_proof import is_output_projection
from surgery.errors import Refused
from surgery.plan import Plan
from surgery.seeded_random import Seeded

Read = Callable[[int], torch.Tensor]


def check_supported(base: Anatomy, plan: Plan) -> None:
    """Raises `Refused` for ways to begin that can't be promised."""
    for position, layer in enumerate(plan.layers):
        kind = layer.init.kind
        if layer.base:
            raise Refused(f"Which base “{layer.base}” is was not said: stack the bases first.")
        if kind == "copy":
            continue
        if base.quantized:
            raise Refused(
                f"The stored weights are quantized ({base.quantized}), so they can only be copied "
                f"as they are: @{kind} would have to compute with them."
            )
        if kind in ("random", "average") and base.tables:
            raise Refused(
                f"@{kind} can't be done here: this model keeps a part of each layer in a table "
                f"outside the layers ({min(base.tables)}). Use @copy."
            )
        if kind in ("identity", "scale") and layer.source not in base.identity_layers:
            raise Refused(
                f"@{kind} can't be promised for layer {layer.source}: it does more than add the "
                "outputs of its last projections to what it is given. Use @copy or @average."
            )
        if kind == "scale" and _normalised_outputs(base, layer.source):
            raise Refused(
                f"@{layer.init} has no effect here: this model normalises what each layer adds, "
                "which undoes the scaling. Use @identity or @copy."
            )
        if kind == "average":
            _check_neighbour(base, plan, position)
        if shared := _shared(base, plan, position):
            raise Refused(
                f"@{layer.init} can't be done here: {shared} of layer {layer.source} is one tensor "
                "with another part of the model, which would begin otherwise too. Use @copy."
            )


def _shared(base: Anatomy, plan: Plan, position: int) -> str | None:
    """A tensor that the layer at `position` would begin with anew though others use it as well: a
    reload would tie them again (Zamba has one attention block for many layers)."""
    source = plan.layers[position].source
    for name, tensor in base.tensors.items():
        where = base.layer_of(name)
        if where and where[1] == source and changes(plan, position, where[2]):
            users = {w and w[1] for w in map(base.layer_of, base.names_of(tensor))}
            if users != {source}:
                return name
    return None


def _normalised_outputs(base: Anatomy, layer: int) -> bool:
    """Does a norm follow the output projections (Gemma 2 and 3, OLMo 2)?"""
    module = base.model.get_submodule(base.stack.paths[0])[layer]
    return any(
        word in name
        for name, _ in module.named_children()
        for word in ("post_feedforward", "post_mlp")
    )


def _check_neighbour(base: Anatomy, plan: Plan, position: int) -> None:
    if position + 1 == len(plan):
        raise Refused("@average is the mean with the next layer, and the last layer has none.")
    source, other = plan.layers[position].source, plan.layers[position + 1].source
    if base.kinds[source] != base.kinds[other] or _shapes(base, source) != _shapes(base, other):
        raise Refused(
            f"Layers {source} and {other} are of different types and can't be averaged. Use @copy."
        )


def _shapes(base: Anatomy, layer: int) -> dict[tuple[str, str], torch.Size]:
    found = {}
    for name, tensor in base.tensors.items():
        where = base.layer_of(name)
        if where and where[1] == layer:
            found[where[0], where[2]] = tensor.shape
    return found


def changes(plan: Plan, position: int | None, rest: str) -> bool:
    """Does the tensor called `rest` (without its layer's prefix) begin otherwise at `position`?"""
    kind = "copy" if position is None else plan.layers[position].init.kind
    return is_output_projection(rest) if kind in ("identity", "scale") else kind != "copy"


def begin(plan: Plan, position: int, read: Read) -> torch.Tensor:
    """A new tensor for one that `changes`: identity, scale and average.

    `read(i)` gives the same tensor of the base's layer i. Same shape and dtype.
    """
    layer = plan.layers[position]
    tensor = read(layer.source).detach()
    if not tensor.is_floating_point():
        return tensor  # a table of indices has no mean
    match layer.init.kind:
        case "identity":
            return torch.zeros_like(tensor)
        case "scale":
            return tensor * layer.init.factor
        case "average":
            wide = torch.promote_types(tensor.dtype, torch.float32)
            other = read(plan.layers[position + 1].source).detach()
            return ((tensor.to(wide) + other.to(wide)) / 2).to(tensor.dtype)
    raise ValueError(layer.init.kind)


def random_layer(
    base: Anatomy, plan: Plan, position: int, dtype: torch.dtype
) -> Mapping[str, torch.Tensor]:
    """The layer at `position` as transformers initialises it: {full name in the model: tensor}.

    On the CPU, seeded by its position: the same numbers on every machine, others in every layer.
    Raises `Refused` where the model doesn't say how all of its parameters begin.
    """
    model = build_meta(rewrite(base.whole, plan.sources, base.stack.depth, base.modules))
    found: dict[str, torch.Tensor] = {}
    with Seeded(position), torch.no_grad():
        for path in base.stack.paths:
            layer: nn.Module = model.get_submodule(path)[position]
            layer.to(dtype).to_empty(device="cpu")
            stored = {
                name: tensor
                for name, tensor in layer.state_dict(keep_vars=True).items()
                if tensor.is_floating_point()
            }
            for tensor in stored.values():
                tensor.fill_(torch.nan)  # whatever nobody fills is noticed
                tensor._is_hf_initialized = False
            for module in layer.modules():
                module._is_hf_initialized = False
                model._init_weights(module)
            for name, tensor in stored.items():
                if not torch.isfinite(tensor).all():
                    raise Refused(
                        f"@random isn't available here: transformers doesn't define how {name} is "
                        "initialised. Use @copy."
                    )
                found[f"{path}.{position}.{name}"] = tensor.detach()
    return found
