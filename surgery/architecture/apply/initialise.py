"""Initialise layers as a plan says: check that it can be done, and compute the new tensors.

Used by the patient in memory and by the checkpoint on disk, so that both compute the same in the
same dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from surgery.architecture.config.rewrite import rewrite
from surgery.architecture.inspect.anatomy import Anatomy, build_meta
from surgery.architecture.inspect.identity_proof import output_block
from surgery.architecture.inspect.layer_list import layer_list
from surgery.errors import Refused
from surgery.initialisers import Block, Changes, Needs
from surgery.plan import Plan
from surgery.seeded_random import Seeded

Read = Callable[[int], torch.Tensor]


def check_supported(base: Anatomy, plan: Plan) -> None:
    """Raise `Refused` if a layer can't be initialised as the plan says."""
    if fitted := plan.fitted:
        raise Refused(
            f"@{plan.layers[fitted[0]].init} marks layers whose weights are fitted on a text: "
            "repair this plan first (python -m surgery repair), or write it without these marks."
        )
    for position, layer in enumerate(plan.layers):
        if layer.base:
            raise Refused(f"The plan names “{layer.base}”, another base: stack the bases first.")
        if layer.init.initialiser.changes is Changes.NOTHING:
            continue
        if base.quantized:
            raise Refused(
                f"The stored weights are quantized ({base.quantized}), so they can only be copied "
                f"as they are: @{layer.init.kind} would have to compute with them."
            )
        for need in layer.init.initialiser.needs:
            if reason := _CHECKS[need](base, plan, position):
                raise Refused(reason)
        if shared := _shared(base, plan, position):
            raise Refused(
                f"@{layer.init} can't be done here: {shared} of layer {layer.source} is one tensor "
                "with another part of the model, which would change too. Use @copy."
            )


def _check_residual(base: Anatomy, plan: Plan, position: int) -> str | None:
    layer = plan.layers[position]
    if layer.source in base.identity_layers:
        return None
    return (
        f"@{layer.init.kind} can't be promised for layer {layer.source}: it does more than add the "
        "outputs of its last projections to what it is given. Use @copy or @average."
    )


def _check_plain_outputs(base: Anatomy, plan: Plan, position: int) -> str | None:
    """Check that no norm follows the output projections, as in Gemma 2 and 3 and OLMo 2."""
    layer = plan.layers[position]
    module = layer_list(base.model, base.stack.paths[0])[layer.source]
    if not any(
        word in name
        for name, _ in module.named_children()
        for word in ("post_feedforward", "post_mlp")
    ):
        return None
    return (
        f"@{layer.init} has no effect here: this model normalises what each layer adds, "
        "which undoes the scaling. Use @identity or @copy."
    )


def _check_blocks(base: Anatomy, plan: Plan, position: int) -> str | None:
    """Check that each output projection is that of attention or of an MLP, and that both occur."""
    layer = plan.layers[position]
    outputs = {output_block(rest) for _, rest in _shapes(base, layer.source)} - {None}
    if outputs == {Block.ATTENTION, Block.MLP}:
        return None
    return (
        f"@{layer.init.kind} can't be done for layer {layer.source}: it isn't made of attention "
        "and an MLP that end in output projections of their own. Use @identity or @copy."
    )


def _check_whole_layer(base: Anatomy, plan: Plan, position: int) -> str | None:
    if not base.tables:
        return None
    return (
        f"@{plan.layers[position].init.kind} can't be done here: this model keeps a part of each "
        f"layer in a table outside the layers ({min(base.tables)}). Use @copy."
    )


def _check_next_layer(base: Anatomy, plan: Plan, position: int) -> str | None:
    if position + 1 == len(plan):
        return "@average is the mean with the next layer, and the last layer has none."
    source, other = plan.layers[position].source, plan.layers[position + 1].source
    if base.kinds[source] == base.kinds[other] and _shapes(base, source) == _shapes(base, other):
        return None
    return f"Layers {source} and {other} are of different types and can't be averaged. Use @copy."


# Each returns the reason for a refusal, or None.
_CHECKS = {
    Needs.RESIDUAL: _check_residual,
    Needs.PLAIN_OUTPUTS: _check_plain_outputs,
    Needs.BLOCKS: _check_blocks,
    Needs.WHOLE_LAYER: _check_whole_layer,
    Needs.NEXT_LAYER: _check_next_layer,
}


def _shared(base: Anatomy, plan: Plan, position: int) -> str | None:
    """A tensor that the layer at `position` would change although others use it as well: a reload
    would tie them again (Zamba has one attention block for many layers)."""
    source = plan.layers[position].source
    for name, tensor in base.tensors.items():
        where = base.layer_of(name)
        if where and where[1] == source and changes(plan, position, where[2]):
            users = {w and w[1] for w in map(base.layer_of, base.names_of(tensor))}
            if users != {source}:
                return name
    return None


def _shapes(base: Anatomy, layer: int) -> dict[tuple[str, str], torch.Size]:
    result = {}
    for name, tensor in base.tensors.items():
        where = base.layer_of(name)
        if where and where[1] == layer:
            result[where[0], where[2]] = tensor.shape
    return result


def changes(plan: Plan, position: int | None, rest: str) -> bool:
    """Whether the tensor called `rest` (without its layer's prefix) is not copied at `position`."""
    if position is None:
        return False
    return plan.layers[position].init.initialiser.changes_tensor(output_block(rest))


def new_values(plan: Plan, position: int, read: Read) -> torch.Tensor:
    """Return the tensor that replaces one that `changes`, in the same shape and dtype.

    `read(i)` returns the same tensor of the base's layer i. Not for initialisers that are `drawn`.
    """
    layer = plan.layers[position]
    tensor = read(layer.source).detach()
    if not tensor.is_floating_point():
        return tensor  # a table of indices has no mean
    after = None
    if layer.init.initialiser.reads_next:
        after = read(plan.layers[position + 1].source).detach()
    return layer.init.initialiser.new_values(tensor, after, layer.init.factor)


def random_layer(
    base: Anatomy, plan: Plan, position: int, dtype: torch.dtype
) -> Mapping[str, torch.Tensor]:
    """Initialise the layer at `position` as transformers does: {full name in the model: tensor}.

    On the CPU, seeded by its position: the same numbers on every machine, different ones in every
    layer. Raises `Refused` if the model doesn't define how all of its parameters are initialised.
    """
    model = build_meta(rewrite(base.whole, plan.sources, base.stack.depth, base.modules))
    result: dict[str, torch.Tensor] = {}
    with Seeded(position), torch.no_grad():
        for path in base.stack.paths:
            layer = layer_list(model, path)[position]
            layer.to(dtype).to_empty(device="cpu")
            stored = {
                name: tensor
                for name, tensor in layer.state_dict(keep_vars=True).items()
                if tensor.is_floating_point()
            }
            for tensor in stored.values():
                tensor.fill_(torch.nan)  # so that values which stay unset are noticed
                tensor._is_hf_initialized = False
            for module in layer.modules():
                vars(module)["_is_hf_initialized"] = False
                model._init_weights(module)
            for name, tensor in stored.items():
                if not torch.isfinite(tensor).all():
                    raise Refused(
                        f"@random isn't available here: transformers doesn't define how {name} is "
                        "initialised. Use @copy."
                    )
                result[f"{path}.{position}.{name}"] = tensor.detach()
    return result
