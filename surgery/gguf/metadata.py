"""Rewrite a GGUF file's metadata for a plan: the depth, per-layer arrays, the size label.

What may depend on the layers and isn't known is refused. All other values are kept as they are,
tokenizer included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from struct import error as StructError

from gguf.utility import size_label

from surgery import __version__
from surgery.errors import BaseError, Refused

from .architectures import DENSE
from .fields import STRING, Field, text
from .file import TYPE, GgufFile
from .layer_kinds import architecture_of, dense_layers

# What is recorded of a save: the base's file name, the plan, and what wrote it.
BASE, PLAN, VERSION = "layer_surgery.base", "layer_surgery.plan", "layer_surgery.version"
HEADS = "attention.head_count"
# Keys below the architecture's name that may hold an array with a value for each layer.
_PER_LAYER = {
    *(HEADS, "attention.head_count_kv", "feed_forward_length", "expert_feed_forward_length"),
    *("expert_used_count", "attention.sliding_window_pattern", "attention.recurrent_layers"),
    *("attention.rope_pattern", "swiglu_clamp_exp", "swiglu_clamp_shexp"),
}
_PER_LAYER_OF_ALL = {"xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps"}
# Arrays that are no one's layers, however long they happen to be.
_NOT_OF_LAYERS = re.compile(
    r"tokenizer\..*|general\.(tags|languages|datasets|sampling\..*)|split\..*"
    r"|.*\.rope\.dimension_sections|.*\.classifier\.output_labels"
)
_KEPT = re.compile(r"(tokenizer|general|split|quantize|layer_surgery)\..*")
# Names of what may go by the layers' numbers, and of what does not.
_LAYERISH = re.compile(r"layer|block|interval|pattern|step|every|lead")
_HARMLESS = re.compile(r".*attention\.layer_norm(_rms)?_epsilon|.*\.time_step_rank")
_IDENTITY = ("general.uuid", BASE, PLAN, VERSION)
_SIZE_LABEL = "general.size_label"
_EXPERTS = re.compile(r"_(exps|chexps)\.")


def check_metadata(base: GgufFile) -> None:
    """Raise `Refused` if the metadata has something that may depend on the layers in a way that
    isn't known, or `BaseError` if it contradicts itself."""
    kind = base.fields.get(TYPE)
    if kind is not None and kind.value != "model":
        raise Refused(f"{base.name} holds no language model but “{str(kind.value)[:40]}”.")
    known = architecture_of(base)
    expected = {every.key for every in known.every} | {"block_count"}
    expected |= {DENSE} if known.leading_dense else set()
    for key, found in base.fields.items():
        if found.is_array and _is_per_layer(base, key):
            if found.count != base.depth or found.kind == STRING:
                raise BaseError(
                    f"{base.name} has {base.depth} layers and {found.count} values of {key[:80]}."
                )
            continue
        if found.is_array and not _NOT_OF_LAYERS.fullmatch(key):
            if found.count == base.depth:
                raise Refused(
                    f"{key[:80]} in {base.name} is an array of {found.count} values, as many as "
                    "there are layers. Whether it has one for each layer isn't known here, so it "
                    "can't be rewritten."
                )
            if found.kind == STRING and any(entry.startswith("blk.") for entry in found.value):
                raise Refused(f"{key[:80]} in {base.name} names tensors of layers.")
        if _KEPT.fullmatch(key) or _HARMLESS.fullmatch(key):
            continue
        suffix = key.removeprefix(f"{base.architecture}.")
        if suffix not in expected and _LAYERISH.search(suffix) and (found.is_array or found.value):
            raise Refused(
                f"{base.name} sets {key[:80]}, which may go by the numbers of layers in a way "
                f"that isn't known here for {base.architecture[:40]}."
            )


def rewritten(base: GgufFile, sources: Sequence[int], values: Sequence[int]) -> dict[str, Field]:
    """The metadata for a plan with these source layers. `values` are the numbers of values of all
    tensors and of those of experts. Raises `Refused`."""
    fields = {key: found for key, found in base.fields.items() if key not in _IDENTITY}
    prefix = f"{base.architecture}."
    for key, found in base.fields.items():
        if found.is_array and _is_per_layer(base, key):
            entries = found.value
            if key == prefix + HEADS and entries[sources[0]] != entries[0]:
                raise Refused(
                    "llama.cpp takes the size of attention heads from the first layer, and "
                    f"layer {sources[0]} has {entries[sources[0]]} heads where layer 0 has "
                    f"{entries[0]}. Keep a layer with as many heads as layer 0 first."
                )
            fields[key] = found.with_value([entries[source] for source in sources])
    counts = {"block_count": len(sources)}
    if architecture_of(base).leading_dense and prefix + DENSE in fields:
        counts[DENSE] = dense_layers(base, sources)
    for key, count in counts.items():
        try:
            fields[prefix + key] = fields[prefix + key].with_value(count)
        except StructError as error:
            raise Refused(f"{prefix + key} can't hold {count}.") from error
    label = fields.get(_SIZE_LABEL)
    if label is not None and label.kind == STRING and not label.is_array:
        fields[_SIZE_LABEL] = text(_label(base, *values))
    return fields


def record(fields: Mapping[str, Field], base: GgufFile, plan: str) -> dict[str, Field]:
    """The metadata with what `verify` needs to know of the save."""
    return {**fields, BASE: text(base.name), PLAN: text(plan), VERSION: text(__version__)}


def is_expert(name: str) -> bool:
    """Whether a tensor holds the weights of a layer's routed experts."""
    return bool(_EXPERTS.search(name))


def _label(base: GgufFile, total: int, experts: int) -> str:
    """The size label that llama.cpp's converter would give."""
    count = base.get("expert_count") or 0
    if not isinstance(count, int) or not count or not experts:
        return size_label(total, total, 0, 0)
    return size_label(total, total - experts, experts // count, count)


def _is_per_layer(base: GgufFile, key: str) -> bool:
    prefix, _, rest = key.partition(f"{base.architecture}.")
    return key in _PER_LAYER_OF_ALL or (not prefix and rest in _PER_LAYER)
