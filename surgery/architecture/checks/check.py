"""Check that each layer of the new skeleton is what its source layer was; `Refused` if not.

Compares two models on the meta device, which takes milliseconds and no weights. A difference that
remains after renumbering means that behaviour depends on a layer's position, so the patient would
not be the base's own layers in another order. No check knows a model type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from surgery.architecture.inspect.anatomy import Anatomy
from surgery.architecture.inspect.layer_inputs import first_difference, layer_inputs
from surgery.architecture.inspect.layer_list import layer_list
from surgery.architecture.inspect.loader import auto_class
from surgery.architecture.inspect.meta import cached_length
from surgery.architecture.inspect.module_diff import ModuleDiff, computed_buffers
from surgery.architecture.inspect.modules import modules_by_name
from surgery.architecture.inspect.names import memory_names
from surgery.errors import Refused
from surgery.progress import alive

from .index_use import index_use_changes
from .loop_index import check_loop

_REMEMBERED = 64  # plans of a base


def check(base: Anatomy, new: PreTrainedModel, sources: Sequence[int]) -> None:
    """Run all checks that need no weights. Raises `Refused`."""
    if tuple(sources) in base.approved:
        return
    tensors = new.state_dict(keep_vars=True)
    check_shapes(base, tensors, sources)
    check_sharing(base, tensors, sources)
    check_modules(base, new, sources)
    check_loop(base, new, sources)
    check_layer_inputs(base, new, sources)
    check_cache_length(base, new, sources)
    check_buffers(base, new, sources)  # last: it puts real buffers into the skeleton
    base.approved[tuple(sources)] = None
    while len(base.approved) > _REMEMBERED:
        base.approved.popitem(last=False)


def check_shapes(
    base: Anatomy, tensors: Mapping[str, torch.Tensor], sources: Sequence[int]
) -> None:
    """Check that the new model, whose tensors these are, has exactly the plan's, by name and
    shape."""
    shapes = {old: tensor.shape for old, tensor in base.tensors.items()}
    for old, (dim, block) in base.tables.items():
        shape = list(shapes[old])
        shape[dim] = block * len(sources)
        shapes[old] = torch.Size(shape)
    have = {name: shapes[old] for name, old in memory_names(base, sources).items()}
    want = {name: tensor.shape for name, tensor in tensors.items()}
    if want == have:
        return
    problems = [
        f"{len(odd)} {what}, such as {min(odd)}"
        for what, odd in (
            ("missing", want.keys() - have.keys()),
            ("left over", have.keys() - want.keys()),
            ("of another shape", {n for n in want.keys() & have.keys() if want[n] != have[n]}),
        )
        if odd
    ]
    raise Refused(
        "The model that transformers builds for this plan does not fit the base's tensors: "
        + "; ".join(problems)
        + ". Try a plan that keeps more of the base's order."
    )


def check_sharing(
    base: Anatomy, tensors: Mapping[str, torch.Tensor], sources: Sequence[int]
) -> None:
    """Check that names which share a tensor in the new model, whose tensors these are, share one in
    the base."""
    names = memory_names(base, sources)
    stands_for: dict[int, torch.Tensor] = {}
    for name, tensor in tensors.items():
        source = base.tensors[names[name]]
        if stands_for.setdefault(id(tensor), source) is not source:
            raise Refused(
                f"At these positions {name} would share its weights with another layer, which its "
                "source does not."
            )
    for group in base.sharing_layers:
        moved = [i for i in sources if i in group]
        if moved != sorted(group) and (place := _keyed(base, group)):
            raise Refused(
                f"Layers {', '.join(map(str, sorted(group)))} share a block, and {place} keeps "
                "per-layer state in it by position. Keep each of them once, in this order."
            )


def check_buffers(base: Anatomy, new: PreTrainedModel, sources: Sequence[int]) -> None:
    """Check that buffers which a reload computes (rotary frequencies, decays by depth) have the
    base's values."""
    with suppress(Exception):  # a model whose code wants to see all of its layers
        if _other_buffer(base, computed_buffers(new, base.stack.paths), sources) is None:
            return
    if other := _other_buffer(base, computed_buffers(new), sources):
        name, source = other
        raise Refused(
            f"{name} would not be computed as {source} was: in this model it depends on the depth "
            "or on where a layer stands."
        )


def _other_buffer(
    base: Anatomy, computed: Mapping[str, torch.Tensor], sources: Sequence[int]
) -> tuple[str, str] | None:
    """The name of a buffer with another value than the base's, and the base's name for it."""
    for name, value in computed.items():
        where = base.layer_of(name)
        source = f"{where[0]}.{sources[where[1]]}.{where[2]}" if where else name
        before = base.computed.get(source)
        if before is None or not _equal(before, value):
            return name, source
    return None


def check_modules(base: Anatomy, new: PreTrainedModel, sources: Sequence[int]) -> None:
    """Check that every module has the type and attributes of its source, and that none computes
    with its own position."""
    diff = ModuleDiff(base.model, new, sources, base.stack.depth)
    before, after = map(modules_by_name, (base.model, new))
    for path in base.stack.paths:
        if (built := len(layer_list(new, path))) != len(sources):
            raise Refused(
                f"The plan has {len(sources)} layers, but transformers builds {built} for it."
            )
    tables = {table.rpartition(".")[0] for table in base.tables}
    seen = set()
    for name, module in after.items():
        alive()
        where = base.layer_of(name + ".")
        source = name
        if where:
            path, p, rest = where
            source = f"{path}.{sources[p]}.{rest}".removesuffix(".")
        seen.add(source)
        if source not in before:
            place = _place(where, sources)
            raise Refused(f"{place} would have a part that it did not have: {name}.")
        difference = diff.difference(
            before[source], module, indexed=bool(where), packed=name in tables
        )
        if difference:
            raise Refused(
                f"{_place(where, sources)} would not act as before: {difference} "
                f"({name or 'the whole'}). In this model behaviour depends on where a layer stands."
            )
        if where and (code := index_use_changes(before[source], module)):
            raise Refused(
                f"{_place(where, sources)} would not act as before: its code computes with its "
                f"position (`{code}` in {type(module).__name__})."
            )
    kept = set(sources)
    for name in before.keys() - seen:
        where = base.layer_of(name + ".")
        if (where and where[1] in kept) or not (where or diff.is_gone(name)):
            raise Refused(f"The new model would lack a part that the base has: {name}.")


def check_layer_inputs(base: Anatomy, new: PreTrainedModel, sources: Sequence[int]) -> None:
    """Check that the loop around the layers calls each with what its source is called with, as far
    as shapes tell."""
    if base.layer_inputs is None and auto_class(base.whole) is not AutoModelForCausalLM:
        raise Refused(
            f"{type(base.model).__name__} can't be run on text alone without weights, so the "
            "result of rearranging its layers can't be checked."
        )
    outputs = base.layer_outputs
    if len(base.stack.paths) > 1 or base.layer_inputs is None or outputs is None:
        return  # can't be run without memory; what can be read was read
    now = layer_inputs(new, base.stack.paths[0], [outputs[i] for i in sources])
    if now is None:
        raise Refused(
            "The model that transformers builds for this plan does not run. Try a plan that keeps "
            "more of the base's order."
        )
    if difference := first_difference(base.layer_inputs, now, sources):
        raise Refused(
            f"In this plan {difference}. In this model what a layer is given depends on where it "
            "stands, or on which layers came before it."
        )


def check_cache_length(base: Anatomy, new: PreTrainedModel, sources: Sequence[int]) -> None:
    """Check that the cache still knows its length if the plan has another first layer, or lacks a
    kind of layer."""
    kinds = {base.kinds[i] for i in sources}
    if sources[0] == 0 and kinds == set(base.kinds):
        return
    if base.cached_length is not None and cached_length(new) != base.cached_length:
        gone = ", ".join(f"“{kind}”" for kind in sorted(set(base.kinds) - kinds))
        keep = [] if sources[0] == 0 else ["keep layer 0 first"]
        keep += [f"keep a layer of type {gone}"] if gone else []
        raise Refused(
            "With this plan the cache could not tell how many tokens it holds: this model takes "
            f"that number from one layer. To fix the plan, {' and '.join(keep)}."
        )


def _place(where: tuple[str, int, str] | None, sources: Sequence[int]) -> str:
    return f"Layer {sources[where[1]]} at position {where[1]}" if where else "The model"


def _keyed(base: Anatomy, group: frozenset[int]) -> str | None:
    """The attribute by which a block shared by these layers tells them apart (Zamba 2 has an
    adapter for each, looked up by the layer's index); None if it has none."""
    layer = layer_list(base.model, base.stack.paths[0])[min(group)]
    for module in layer.modules():
        for key, value in vars(module).items():
            plain = isinstance(value, (list, tuple, dict)) and all(type(x) is int for x in value)
            if plain and group <= set(value):
                return f"`{key}` of {type(module).__name__}"
    return None


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
