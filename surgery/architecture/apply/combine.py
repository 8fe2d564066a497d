"""Combine models of one shape: a config with the layers of all, and which modules come from which.

Models that don't fit together are refused, with the settings that differ.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig

from surgery.architecture.config.quantization import renumber
from surgery.architecture.config.rewrite import (
    DEPTH_FIELDS,
    INDEX_LISTS,
    is_per_layer,
    quantization_of,
    text_key,
)
from surgery.architecture.inspect.anatomy import Anatomy, build_meta
from surgery.architecture.inspect.layer_list import layer_list
from surgery.architecture.inspect.meta import run
from surgery.errors import Refused, one_line

# What may differ without changing what a model computes when it is used.
_FREE = {"_name_or_path", "architectures", "auto_map", "dtype", "transformers_version"}
_FREE |= {"use_cache"}
_FREE_ENDINGS = ("_token_id", "dropout", "pdrop", "initializer_range")
# Rules about which layers are of which kind, written for one model's depth.
_RULES = (
    "attn_layer_period",
    "attention_types",
    "block_types",
    "expert_layer_period",
    "first_k_dense_replace",
    "moe_layer_start_index",
    "num_dense_layers",
    "num_kv_shared_layers",
    "per_layer_config",
    "scale_depth",
)


def combine(bases: Mapping[str, Anatomy], sizes: bool = True) -> PreTrainedConfig:
    """Return the config of a model that has the layers of all bases, one base after the other.

    Settings that may differ (`_FREE`) are taken from the first base. They include the token ids,
    which belong to the embeddings: some models count positions from the padding token's id. So does
    the size of the vocabulary, unless the `sizes` have to agree. Raises `Refused` with the settings
    that don't match.
    """
    (first, one), *others = bases.items()
    whole = copy.deepcopy(one.whole.to_dict())
    key = text_key(one.whole)
    part = whole[key] if key else whole
    for field in _RULES:
        if part.get(field):
            raise Refused(
                f"These models say by a rule ({field}) which layers are of which kind, so layers "
                "of two of them can't be told apart in one config."
            )
    if part.get("decoder_sparse_step", 1) != 1:
        raise Refused("Models with experts in every n-th layer can't be stacked.")
    depth = one.stack.depth
    for name, other in others:
        theirs = other.whole.to_dict()
        if text_key(other.whole) != key:
            raise Refused(f"{first} and {name} are built differently: one is multimodal.")
        if key and (odd := _around(whole, theirs, key)):
            raise Refused(
                f"{first} and {name} don't fit together: {odd[0]} differs, which is outside their "
                "text models."
            )
        theirs = theirs[key] if key else theirs
        odd = _join(part, theirs, depth, other.stack.depth)
        if not sizes:
            odd = [field for field in odd if field != "vocab_size"]
        if odd:
            field = odd[0]
            raise Refused(
                f"{first} and {name} don't fit together: {field} is {_short(part.get(field))} in "
                f"one and {_short(theirs.get(field))} in the other"
                + (f" ({len(odd)} settings differ: {', '.join(odd[:8])})." if odd[1:] else ".")
            )
        if quantization_of(other.whole) != quantization_of(one.whole):
            raise Refused(f"{first} and {name} are not quantized in the same way.")
        depth += other.stack.depth
    layers = [layer for base in bases.values() for layer in range(base.stack.depth)]
    deepest = max(bases.values(), key=lambda base: base.stack.depth)
    for place in (whole, part) if key else (whole,):
        if isinstance(quantization := place.get("quantization_config"), dict):
            place["quantization_config"] = renumber(quantization, deepest.modules, layers)
    try:
        return type(one.whole).from_dict(whole)
    except Exception as error:
        message = one_line(error.__cause__ or error)
        raise Refused(f"No config can say this stack: {message}") from error


def _join(ours: dict, theirs: dict, depth: int, more: int) -> list[str]:
    """Append their layers' entries to ours, in place. Returns the fields that don't fit."""
    odd = []
    for field in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(field), theirs.get(field)
        if _is_free(field):
            continue
        if field in DEPTH_FIELDS and a in (depth, None) and b in (more, None):
            if a is not None:
                ours[field] = depth + more
        elif field in INDEX_LISTS and isinstance(a, list) and isinstance(b, list):
            ours[field] = [*a, *(i + depth for i in b)]
        elif is_per_layer(field, a, depth) and is_per_layer(field, b, more):
            ours[field] = [*(a or ()), *(b or ())]
        elif a != b:
            odd.append(field)
    return odd


def _is_free(field: str) -> bool:
    return field in _FREE or field.endswith(_FREE_ENDINGS)


def _around(ours: dict, theirs: dict, key: str) -> list[str]:
    """Fields of two multimodal configs that differ outside the text config `key`."""

    def plain(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {field: plain(inner) for field, inner in value.items() if not _is_free(str(field))}

    ours, theirs = ({k: v for k, v in d.items() if k != key} for d in (ours, theirs))
    ours, theirs = plain(ours), plain(theirs)
    return sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))


def outer_parts(base: Anatomy) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the parameters outside the layers: those used before the layers run, and
    those used after, as a forward pass on the meta device shows. Vision and audio towers belong to
    the embeddings, which they feed. Raises `Refused`."""
    model = build_meta(copy.deepcopy(base.whole))
    path = base.stack.paths[0]
    layers = layer_list(model, path)
    before: set[str] = set()
    after: set[str] = set()
    entered: list[int] = []

    def note(name: str):
        def hook(*_) -> None:
            names = {
                f"{name}.{leaf}" for leaf, _ in module_of[name].named_parameters(recurse=False)
            }
            (after if entered else before).update(names)

        return hook

    module_of = dict(model.named_modules())
    for name, module in module_of.items():
        own = next(module.parameters(recurse=False), None)
        if own is not None and base.layer_of(f"{name}.x") is None:
            module.register_forward_pre_hook(note(name))
    layers[0].register_forward_pre_hook(lambda *_: entered.append(0))
    try:
        run(model, 4, use_cache=False)
    except Exception as error:
        raise Refused(
            "These bases can't be stacked: without weights it can't be determined which modules "
            "run before the layers and which after them."
        ) from error
    outside = {
        name
        for name, _ in model.named_parameters(remove_duplicate=False)
        if base.layer_of(name) is None
    }
    before |= {name for name in outside - after if base.is_tower(name)}
    if missed := outside - before - after:
        raise Refused(
            f"These bases can't be stacked: it isn't clear which base should provide {min(missed)}."
        )
    return frozenset(before - after), frozenset(after)


def head_of(base: Anatomy) -> frozenset[str]:
    """The names of the output head's parameters. Raises `Refused` if the model names no head."""
    head = base.model.get_output_embeddings()
    names = {
        f"{path}.{leaf}"
        for path, module in base.model.named_modules()
        if module is head
        for leaf, _ in module.named_parameters(recurse=False)
    }
    if not names:
        raise Refused("It isn't clear which tensor of these models is their output head.")
    return frozenset(names)


def check_tied(base: Anatomy, after: Sequence[str]) -> None:
    """Raise `Refused` if a parameter after the layers is tied to one before them."""
    seen: dict[int, str] = {}
    for name, tensor in base.model.named_parameters(remove_duplicate=False):
        if base.layer_of(name) is not None:
            continue
        other = seen.setdefault(id(tensor), name)
        if other != name and (name in after) != (other in after):
            raise Refused(
                f"{other} and {name} are one tensor in these models, so the embeddings can't come "
                "from one base and the head from another: begin and end with the same base."
            )


def _short(value: object) -> str:
    if isinstance(value, torch.dtype):
        value = str(value)
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "…"
