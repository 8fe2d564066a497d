"""Compare the modules that are stored quantized with those declared in the quantization config.

A loader allocates packed weights where the config says so and plain weights elsewhere. Where the
checkpoint disagrees, weights stay random, mostly without an error. So both are compared, module by
module, for the methods whose config decides it. Only headers are read; the quantization method's
library is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from surgery.architecture.config.quantization import Modules
from surgery.architecture.config.rewrite import quantization_of
from surgery.errors import BaseError

from .anatomy import Anatomy
from .names import Stored, disk_layers, loader_names

# (stored name, name in the model) -> whether the config declares the module quantized; both answers
# if tools disagree.
_Says = Callable[[str, str], set[bool]]

# Field of each method that lists unquantized modules, for `should_convert_module`.
_SKIP_LISTS = {
    "awq": "modules_to_not_convert",
    "bitnet": "modules_to_not_convert",
    "bitsandbytes": "llm_int8_skip_modules",
    "eetq": "modules_to_not_convert",
    "fbgemm_fp8": "modules_to_not_convert",
    "fp8": "modules_to_not_convert",
}
_PLAIN = {"BF16", "F16", "F32", "F64"}
# Tensors that don't show that a module is quantized.
_BESIDE = {"weight", "bias", "input_scale", "output_scale", "q_scale", "k_scale", "v_scale"}
# Suffixes of tensors that only quantized modules have.
_PACKED = re.compile(
    r"\.(qweight|weight_packed|weight_scale|weight_scale_inv|weight_scales|SCB|W_q|weight\.absmax)"
)


@dataclass
class OnDisk:
    """A stored module: its name in the model, its stored name split at the layer number, and the
    dtypes of its tensors."""

    name: str
    where: tuple[str, int, str] | None
    tensors: dict[str, str] = field(default_factory=dict)

    @property
    def packed(self) -> bool:
        """Is its weight quantized?"""
        beside = "weight" in self.tensors and not self.tensors.keys() <= _BESIDE
        return beside or not set(self.tensors.values()) <= _PLAIN

    @property
    def has_scales(self) -> bool:
        """Does it have scales or other quantization parameters?"""
        return not self.tensors.keys() <= _BESIDE


def modules_on_disk(anatomy: Anatomy, stored: Mapping[str, Stored]) -> dict[str, OnDisk]:
    """{stored name: module} for all modules with tensors in the checkpoint."""
    translate = loader_names(anatomy)
    result: dict[str, OnDisk] = {}
    known: dict[str, str | None] = {}

    def model_name(owner: str) -> str | None:
        for leaf in ("weight", "bias"):
            if (name := translate(f"{owner}.{leaf}")) in anatomy.tensors:
                return name.rpartition(".")[0]
        return None

    for name, place in disk_layers(anatomy, stored).items():
        parts = name.split(".")
        owner, own = name.rpartition(".")[0], None
        for end in range(len(parts) - 1, 0, -1):  # “q_proj.weight.absmax” belongs to q_proj
            shorter = ".".join(parts[:end])
            if shorter not in known:
                known[shorter] = model_name(shorter)
            if known[shorter] is not None:
                owner, own = shorter, known[shorter]
                break
        where = None
        if place:
            head, index, _ = place
            where = (head, index, owner[len(head) + len(str(index)) :])
        module = result.setdefault(owner, OnDisk(own or owner, where))
        module.tensors[name[len(owner) :].removeprefix(".")] = stored[name].dtype
    return result


def module_names(anatomy: Anatomy, stored: Mapping[str, Stored]) -> Modules:
    """The modules that a quantization config can name, by their model and their stored names."""
    on_disk = modules_on_disk(anatomy, stored)
    return anatomy.modules | {owner: module.where for owner, module in on_disk.items()}


def check_declared(anatomy: Anatomy, stored: Mapping[str, Stored]) -> None:
    """Raise `BaseError` for quantized weights without a quantization config, as in old GPTQ and FP8
    checkpoints: transformers reads no other file, and would load them as plain weights."""
    if anatomy.quantized:
        return
    suspects = sorted(name for name in stored if _PACKED.search(name))
    if not suspects:
        return
    translate = loader_names(anatomy)
    for name in suspects:
        if translate(name) not in anatomy.tensors:
            raise BaseError(
                f"The weights are quantized (there is a tensor {name}), but config.json has no "
                "quantization_config. transformers doesn't read quantize_config.json or "
                "hf_quant_config.json, and would load wrong weights. Use a version with a "
                "quantization_config in its config.json, or the unquantized model."
            )


def mismatch(anatomy: Anatomy, stored: Mapping[str, Stored]) -> str | None:
    """Describe how the stored modules contradict the quantization config; None if they don't, or
    if the method's config doesn't decide it."""
    quantization = quantization_of(anatomy.whole)
    try:
        return _mismatch(anatomy, quantization, stored) if quantization else None
    except (AttributeError, TypeError, ValueError, re.error) as error:
        return f"quantization_config can't be read: {' '.join(str(error).split())[:200]}."


def _mismatch(
    anatomy: Anatomy, quantization: Mapping[str, Any], stored: Mapping[str, Stored]
) -> str | None:
    if (says := _says(anatomy, quantization)) is None:
        return None
    wrong: dict[str, str] = {}
    modules = {
        owner: module
        for owner, module in modules_on_disk(anatomy, stored).items()
        if _is_matrix(anatomy, module.name) and not module.tensors.keys() <= {"bias"}
    }
    method = quantization.get("quant_method")
    for owner, module in modules.items():
        if owner == module.name and owner.endswith(".experts") and method != "fp8":
            continue  # fused experts: only fp8 can store those quantized
        if module.packed not in says(owner, module.name):
            stored_as = "quantized" if module.packed else "unquantized"
            wrong[owner] = f"is stored {stored_as}, which contradicts quantization_config"
        elif module.packed and not module.has_scales:
            wrong[owner] = "is stored quantized, but its scales are missing"
    if method in ("awq", "gptq"):
        wrong = _without_habits(wrong, modules)
    if not wrong:
        return None
    first = next(owner for owner in modules if owner in wrong)
    return f"{first} {wrong[first]} (affected modules: {len(wrong)})."


def _is_matrix(anatomy: Anatomy, name: str) -> bool:
    """Do quantizers replace this module: is it linear, or a layer's fused experts?"""
    try:
        module = anatomy.model.get_submodule(name)
    except AttributeError:
        return False
    return isinstance(module, (nn.Linear, Conv1D)) or name.endswith(".experts")


def _without_habits(wrong: dict[str, str], modules: Mapping[str, OnDisk]) -> dict[str, str]:
    """Drop modules that are unquantized in every layer: GPTQ and AWQ tools skip some per model
    family, such as routers, without listing them."""
    packed = {m.where[::2] for m in modules.values() if m.where and m.packed}
    return {
        owner: why
        for owner, why in wrong.items()
        if modules[owner].packed or (where := modules[owner].where) is None or where[::2] in packed
    }


def _says(anatomy: Anatomy, quantization: Mapping[str, Any]) -> _Says | None:
    """Return a predicate of what the config declares, or None if it doesn't decide it."""
    method = quantization.get("quant_method")
    if quantization.get("load_in_4bit") or quantization.get("load_in_8bit"):
        method = "bitsandbytes"
    if method in _SKIP_LISTS:
        return _skipping(anatomy, quantization, method)
    if method == "gptq":
        return _in_blocks(anatomy, quantization)
    if method == "compressed-tensors":
        return _in_groups(anatomy, quantization)
    return None


def _skipping(anatomy: Anatomy, quantization: Mapping[str, Any], method: str) -> _Says:
    listed = quantization.get(_SKIP_LISTS[method])
    if listed is None and method == "fp8":
        listed = quantization.get("ignored_layers")
    patterns = HfQuantizer.get_modules_to_not_convert(
        anatomy.model,
        listed,
        list(anatomy.model._keep_in_fp32_modules or ()),
        add_default_skips=method == "awq",
    )

    @cache
    def of(name: str) -> set[bool]:
        # transformers 4 matched an entry anywhere in a name, such as “merger” for its children.
        part = any(f".{entry}." in f".{name}." for entry in patterns)
        return {should_convert_module(name, patterns), not part}

    def says(stored: str, name: str) -> set[bool]:
        # transformers treats experts as one module, whatever the names of their tensors.
        return of(name) if name.endswith(".experts") else of(name) | of(stored)

    return says


def _in_blocks(anatomy: Anatomy, quantization: Mapping[str, Any]) -> _Says:
    inside = [
        name
        for group in quantization.get("modules_in_block_to_quantize") or ()
        for name in ([group] if isinstance(group, str) else group)
    ]
    rules = list(quantization.get("dynamic") or ())

    def of(name: str) -> bool:
        matches = (x for x in rules if re.match(x[2:] if x[:2] in ("-:", "+:") else x, name))
        if next(matches, "").startswith("-:"):  # the first match counts
            return False
        if inside and not any(name.endswith(part) for part in inside):
            return False
        return should_convert_module(name, quantization.get("modules_to_not_convert"))

    def says(stored: str, name: str) -> set[bool]:
        if anatomy.layer_of(f"{name}.weight") is None:
            return {bool(quantization.get("lm_head")) and name.endswith("lm_head")}
        return {of(stored), of(name)}

    return says


def _in_groups(anatomy: Anatomy, quantization: Mapping[str, Any]) -> _Says | None:
    groups = quantization.get("config_groups")
    if not isinstance(groups, Mapping) or quantization.get("format") == "dense":
        return None
    targets: list[str] = []
    for group in groups.values():
        if isinstance(group, Mapping):
            targets += group.get("targets") or () if group.get("weights") else ()
        else:  # a named scheme is just a list of targets
            targets += group
    ignored = quantization.get("ignore") or ()

    def chosen(texts: Iterable[str], name: str, classes: set[str]) -> bool:
        return any(
            re.match(text[3:], name) if text.startswith("re:") else text in {name, *classes}
            for text in texts
        )

    def says(stored: str, name: str) -> set[bool]:
        classes = {cls.__name__ for cls in type(anatomy.model.get_submodule(name)).__mro__}
        if name.endswith(".experts"):  # one module in the model, a linear one per expert on disk
            classes.add("Linear")
        return {
            chosen(targets, x, classes) and not chosen(ignored, x, classes) for x in (stored, name)
        }

    return says
