"""Build the patient's model: a new skeleton of modules over the memory of the base's parameters.

A new model is built from the rewritten config, as a reload from disk would do, and gets its own
Parameter objects over the base's memory, one for each that a reload would have. So replacing one of
them, as `.half()` does, can't affect the base or another layer. Only buffers are copied (rotary
frequencies and the like, a few kB).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from surgery.architecture.checks.check import check
from surgery.architecture.config.rewrite import config_key, rewrite
from surgery.architecture.inspect.anatomy import Anatomy, build_meta
from surgery.architecture.inspect.loader import writes_text
from surgery.architecture.inspect.module_diff import computed_buffers, computed_names
from surgery.architecture.inspect.modules import modules_by_name
from surgery.architecture.inspect.names import memory_names
from surgery.errors import Refused
from surgery.initialisers import Changes
from surgery.memory.garbage import uncollected
from surgery.plan import Plan

from .copy_modules import copy_modules
from .initialise import changes, check_supported, new_values, random_layer
from .inplace_rescaling import disable_inplace_rescaling
from .several_devices import devices_of, run_on_several

_KEPT = 4  # of a base: 4 MB each at 126 layers


def skeleton(base: Anatomy, sources: Sequence[int]) -> PreTrainedModel:
    """Build the plan's model on the meta device, and check it against the base. Raises
    `Refused`."""
    with uncollected():
        new = _laid_out(base, rewrite(base.whole, sources, base.stack.depth, base.modules))
        check(base, new, sources)
    return new


def _laid_out(base: Anatomy, config: PreTrainedConfig) -> PreTrainedModel:
    """The model that transformers builds from this config, on meta: a copy of one that it built
    before from an equal config, if there is one."""
    key = config_key(config)
    known = base.skeletons.get(key)
    if known is not None and (new := copy_modules(known)) is not None:
        return new
    new = build_meta(config)
    base.skeletons[key] = copy_modules(new)
    while len(base.skeletons) > _KEPT:
        base.skeletons.popitem(last=False)
    return new


def build_patient(base: Anatomy, model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Build an ordinary transformers model that runs `model`'s layers as the plan says.

    `model` is the loaded base, which is not changed. Every parameter of the result is a view of one
    of its parameters, except those not initialised as a copy (for identity and scale only the
    output projections), and packed per-layer tables that the plan changes. All have
    `requires_grad=False`. Raises `Refused`.
    """
    check_supported(base, plan)
    check_loadable(base)
    disable_inplace_rescaling(model)
    sources = plan.sources
    new = skeleton(base, sources)
    have, place = _Modules(model), _Modules(new)
    names = memory_names(base, sources)
    unchanged = list(sources) == list(range(base.stack.depth))
    copied = all(layer.init.initialiser.changes is Changes.NOTHING for layer in plan.layers)
    gathered: dict[str, nn.Parameter] = {}
    fresh = {
        name: value
        for position, layer in enumerate(plan.layers)
        if layer.init.initialiser.drawn
        for name, value in random_layer(base, plan, position, model.dtype).items()
    }
    for name, old in names.items():
        tensor = have.tensor(old)
        if old in base.tables and not unchanged:
            if old not in gathered:
                dim, block = base.tables[old]
                rows = [tensor.detach().narrow(dim, i * block, block) for i in sources]
                gathered[old] = nn.Parameter(torch.cat(rows, dim), requires_grad=False)
            tensor = gathered[old]
        elif not copied and (where := base.layer_of(name)) and changes(plan, where[1], where[2]):
            begun = _begun(have, plan, fresh, name, where)
            if isinstance(tensor, nn.Parameter):
                begun = nn.Parameter(begun, requires_grad=False)
            tensor = begun
        place.put(name, tensor)
    _copy_other_buffers(base, have, new, place, sources)
    if left := _without_value(new):
        raise Refused(
            f"transformers leaves {left} of this patient uninitialised, so it can't be run."
        )
    _carry_over(model, new)
    if len(devices_of(new)) > 1:
        run_on_several(base, new)
    return new


def _begun(
    have: _Modules,
    plan: Plan,
    fresh: Mapping[str, torch.Tensor],
    name: str,
    where: tuple[str, int, str],
) -> torch.Tensor:
    """The tensor called `name` of a layer that is not a copy; `fresh` has those of random
    layers."""
    path, position, rest = where

    def read(layer: int) -> torch.Tensor:
        return have.tensor(f"{path}.{layer}.{rest}")

    if name in fresh:
        like = read(plan.layers[position].source)  # some models keep a few tensors in float32
        return fresh[name].to(like.device, like.dtype)
    return new_values(plan, position, read)


def assemble(
    anatomy: Anatomy,
    like: PreTrainedModel,
    find: Callable[[str], tuple[PreTrainedModel, str]],
) -> PreTrainedModel:
    """Build a model from the tensors of others: `find` maps a stored tensor's name to its model and
    its name there.

    Buffers that no checkpoint stores are computed; everything else is as in the model `like`.
    """
    new = build_meta(anatomy.whole)
    place, have = _Modules(new), {}
    for name, value in computed_buffers(new).items():
        place.put(name, value.to(like.device))
    for name in list(new.state_dict()):
        model, old = find(name)
        if model not in have:
            have[model] = _Modules(model)
        place.put(name, have[model].tensor(old))
    if left := _without_value(new):
        raise Refused(
            f"transformers leaves {left} of this stack uninitialised, so it can't be run."
        )
    _carry_over(like, new)
    if len(devices_of(new)) > 1:
        run_on_several(anatomy, new)
    return new


def check_loadable(base: Anatomy) -> None:
    """Raise `Refused` for bases that can be saved but not run: those with quantized weights, and
    those without a language-modelling head."""
    if not writes_text(base.whole):
        raise Refused(
            f"{type(base.model).__name__} has no language-modelling head, so it can't be run "
            "here. Its layers can be rearranged and saved."
        )
    if base.quantized:
        raise Refused(
            f"Its weights are quantized ({base.quantized}), and patients are made of plain weights "
            "only. Save the plan as a checkpoint, which carries the stored tensors over, or use "
            "the unquantized model."
        )


class _Modules:
    """A model's modules by name, listed once: `get_submodule` would walk the tree each time."""

    def __init__(self, model: nn.Module) -> None:
        self._by_name = modules_by_name(model)
        self._mine: dict[tuple[int, int], nn.Parameter] = {}
        self._alive: list[Any] = []  # an id means nothing once its tensor is gone

    def tensor(self, name: str) -> torch.Tensor:
        """The parameter or buffer of this name."""
        owner, _, leaf = name.rpartition(".")
        module = self._by_name[owner]
        found = module._parameters.get(leaf)
        return getattr(module, leaf) if found is None else found

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Set a parameter over the memory of `tensor`, the same for all tied names; for a buffer,
        a copy."""
        owner, _, leaf = name.rpartition(".")
        module = self._by_name[owner]
        if isinstance(tensor, nn.Parameter):
            before = module._parameters[leaf]
            mine = self._mine.get((id(before), id(tensor)))
            if mine is None:
                mine = nn.Parameter(tensor.detach(), requires_grad=False)
                # Under its own id too: a module at several places is given each tensor again.
                self._mine[id(before), id(tensor)] = self._mine[id(mine), id(tensor)] = mine
                self._alive += (before, tensor)
            module._parameters[leaf] = mine
        else:
            module._buffers[leaf] = tensor.clone()


def _copy_other_buffers(
    base: Anatomy, have: _Modules, new: nn.Module, place: _Modules, sources: Sequence[int]
) -> None:
    """Copy the buffers that no checkpoint stores, each from the corresponding module of the
    base."""
    for owner, leaf in computed_names(new):
        name = old = f"{owner}.{leaf}".lstrip(".")
        if where := base.layer_of(name):
            path, p, rest = where
            old = f"{path}.{sources[p]}.{rest}"
        source = have.tensor(old)
        if source.shape != place.tensor(name).shape:
            raise Refused(f"{name} changes its shape with the depth, from {tuple(source.shape)}.")
        place.put(name, source)


def _without_value(model: nn.Module) -> str | None:
    """The name of a tensor that is still on the meta device, plain attributes included."""
    for name, module in modules_by_name(model).items():
        for store in (module._parameters, module._buffers, vars(module)):
            for leaf, value in store.items():
                if type(value) in _PLAIN:  # most attributes, told apart in no time
                    continue
                if isinstance(value, torch.Tensor) and value.is_meta:
                    return f"{name}.{leaf}"
    return None


_PLAIN = frozenset((bool, int, float, str, type(None), dict, OrderedDict, set))


def _carry_over(model: PreTrainedModel, new: PreTrainedModel) -> None:
    """Copy what a loaded model has besides its tensors."""
    for part in (new.config, new.config.get_text_config(decoder=True)):
        part.dtype = model.dtype
    new.config._attn_implementation = model.config._attn_implementation
    if getattr(model, "generation_config", None) is not None:
        new.generation_config = copy.deepcopy(model.generation_config)
    if new.training != model.training:
        new.train(model.training)
