"""Is what is stored quantized what the quantization config says? Knows names, dtypes and lists.

A loader makes a place for packed weights wherever the config says so and plain ones elsewhere; what
doesn't fit is random there, mostly without an error. So both are compared, module by module, for
the methods whose config decides it. Reads headers only, and needs no library of the method's.
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

from ..errors import BaseError
from .anatomy import Anatomy
from .config import quantization_of
from .names import Stored, disk_layers, loader_names
from .quantization import Modules

# Whether the config calls a module quantized, by its stored name and its name in the model: both
# answers where tools read it differently.
_Says = Callable[[str, str], set[bool]]

# Where each method lists what stays unquantized, in the way of `should_convert_module`.
_SKIP_LISTS = {
    "awq": "modules_to_not_convert",
    "bitnet": "modules_to_not_convert",
    "bitsandbytes": "llm_int8_skip_modules",
    "eetq": "modules_to_not_convert",
    "fbgemm_fp8": "modules_to_not_convert",
    "fp8": "modules_to_not_convert",
}
_PLAIN = {"BF16", "F16", "F32", "F64"}
# What lies beside a weight without saying that the weight is quantized.
_BESIDE = {"weight", "bias", "input_scale", "output_scale", "q_scale", "k_scale", "v_scale"}
# Endings that only tensors of quantized weights have.
_PACKED = re.compile(
    r"\.(qweight|weight_packed|weight_scale|weight_scale_inv|weight_scales|SCB|W_q|weight\.absmax)"
)


@dataclass
class OnDisk:
    """A module as a checkpoint stores it: the model's name for it, the place of its layer's number
    in its stored name, and the dtype of each of its tensors."""

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
        """Does anything say what its packed numbers stand for?"""
        return not self.tensors.keys() <= _BESIDE


def modules_on_disk(anatomy: Anatomy, stored: Mapping[str, Stored]) -> dict[str, OnDisk]:
    """{stored name: module} of everything that the checkpoint has tensors of."""
    translate = loader_names(anatomy)
    found: dict[str, OnDisk] = {}
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
        rest = place and owner[len(place[0]) + len(str(place[1])) :]
        where = place and (place[0], place[1], rest)
        module = found.setdefault(owner, OnDisk(own or owner, where))
        module.tensors[name[len(owner) :].removeprefix(".")] = stored[name].dtype
    return found


def module_names(anatomy: Anatomy, stored: Mapping[str, Stored]) -> Modules:
    """The modules that a quantization config may name, as the model and as the files call them."""
    on_disk = modules_on_disk(anatomy, stored)
    return anatomy.modules | {owner: module.where for owner, module in on_disk.items()}


def check_declared(anatomy: Anatomy, stored: Mapping[str, Stored]) -> None:
    """Raise `BaseError` for quantized weights of which the config says nothing, as old GPTQ and
    FP8 checkpoints have them: transformers reads no other file, and takes them for plain ones."""
    if anatomy.quantized:
        return
    suspects = sorted(name for name in stored if _PACKED.search(name))
    translate = loader_names(anatomy) if suspects else None
    for name in suspects:
        if translate(name) not in anatomy.tensors:
            raise BaseError(
                f"The weights are quantized (there is a tensor {name}), but config.json has no "
                "quantization_config. transformers doesn't read quantize_config.json or "
                "hf_quant_config.json, and would load wrong weights. Use a version with a "
                "quantization_config in its config.json, or the unquantized model."
            )


def mismatch(anatomy: Anatomy, stored: Mapping[str, Stored]) -> str | None:
    """What is stored otherwise than the quantization config says, in a sentence; None if nothing
    is, or if the method leaves it to something else than its config."""
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
            continue  # experts stored in one: only fp8 has a place for those
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
    """Is it what quantizers replace: a linear module, or a layer's experts in one?"""
    try:
        module = anatomy.model.get_submodule(name)
    except AttributeError:
        return False
    return isinstance(module, (nn.Linear, Conv1D)) or name.endswith(".experts")


def _without_habits(wrong: dict[str, str], modules: Mapping[str, OnDisk]) -> dict[str, str]:
    """Tools for GPTQ and AWQ know of each family what to leave unquantized in every layer, such as
    routers, and don't write it down."""
    packed = {m.where[::2] for m in modules.values() if m.where and m.packed}
    return {
        owner: why
        for owner, why in wrong.items()
        if modules[owner].packed or not modules[owner].where or modules[owner].where[::2] in packed
    }


def _says(anatomy: Anatomy, quantization: Mapping[str, Any]) -> _Says | None:
    """What the config says of each module. None where the config alone doesn't decide it."""
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
        anatomy.model._keep_in_fp32_modules,
        add_default_skips=method == "awq",
    )

    @cache
    def of(name: str) -> set[bool]:
        # transformers 4 took an entry for any part of a name, such as “merger” for its modules.
        part = any(f".{entry}." in f".{name}." for entry in patterns)
        return {should_convert_module(name, patterns), not part}

    def says(stored: str, name: str) -> set[bool]:
        # Experts are one module for transformers, whatever their tensors are called.
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
        found = (x for x in rules if re.match(x[2:] if x[:2] in ("-:", "+:") else x, name))
        if next(found, "").startswith("-:"):  # the first one that matches counts
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
        else:  # a named scheme: its targets alone
            targets += group
    ignored = quantization.get("ignore") or ()

    def chosen(texts: Iterable[str], name: str, classes: set[str]) -> bool:
        return any(
            re.match(text[3:], name) if text.startswith("re:") else text in {name, *classes}
            for text in texts
        )

    def says(stored: str, name: str) -> set[bool]:
        classes = {cls.__name__ for cls in type(anatomy.model.get_submodule(name)).__mro__}
        if name.endswith(".experts"):  # one module here, a linear one for each expert on disk
            classes.add("Linear")
        return {
            chosen(targets, x, classes) and not chosen(ignored, x, classes) for x in (stored, name)
        }

    return says
