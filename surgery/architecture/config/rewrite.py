"""Apply a plan to a config: rewrite every field that follows the layers.

Works on the loaded config's dict, since raw files have legacy spellings, and builds the result with
the config's own class, so that its validators run. Refuses plans that the config can't express.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from surgery.errors import Refused, one_line
from surgery.plan import MAX_LAYERS

from .quantization import Modules, renumber

# How configs spell their depth.
DEPTH_FIELDS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "layers",
    "decoder_layers",
    "num_decoder_layers",
    "num_blocks",
)
# Lists of layer *indices*, with the number that stands for the first layer.
INDEX_LISTS = {
    "moe_layers": 0,
    "mlp_only_layers": 0,
    "full_attn_idxs": 0,
    "attn_layer_indices": 0,
    "cross_attention_layers": 0,
    "hybrid_layer_ids": 0,
    "local_layer_ids": 0,
    "ple_layer_ids": 1,
    "rope_scaling_layers": 0,
}
# Lists that can be as long as the model is deep by chance, or speak of something else.
NOT_PER_LAYER = {"id2label", "label2id", "architectures", "block_types", "attention_types"}
NOT_PER_LAYER_ENDINGS = ("_token_id", "_token_ids", "multipliers", "_limit")
NOT_PER_LAYER_STARTS = ("mtp_",)
# Heads that predict further tokens are extra layers behind the stack; they are not carried over.
EXTRA_HEADS = ("num_nextn_predict_layers", "num_mtp_layers")
# Lists that say what each layer is. A config class that changes them would change the patient.
LAYER_KINDS = ("layer_types", "mlp_layer_types", "layers_block_type")
# The kernels that a model uses, which are no part of a config's dict.
_IMPLEMENTATIONS = ("_attn_implementation", "_experts_implementation")


def rewrite(
    config: PreTrainedConfig,
    sources: Sequence[int],
    depth: int,
    modules: Modules | None = None,
) -> PreTrainedConfig:
    """Return the config of a model whose layer p is layer sources[p] of `config`'s model.

    `depth` is the old depth. `modules` are those that a quantization config can name, such as
    `Anatomy.modules`; they are needed if there is one. `config` is not modified. Raises `Refused`
    if the config can't express the plan.
    """
    whole = copy.deepcopy(config.to_dict())  # to_dict() returns the live quantization config
    key = text_key(config)
    part = whole[key] if key else whole
    _rewrite_dict(part, list(sources), depth)
    if config.attribute_map.get("num_hidden_layers") == "encoder_layers":
        part["encoder_layers"] = len(sources)  # BART-like decoders size their cache by it
    if "num_encoder_layers" in part and "num_decoder_layers" in part:
        part["num_encoder_layers"] = len(sources)  # ProphetNet likewise
    for place in (whole, part) if key else (whole,):
        if isinstance(quantization := place.get("quantization_config"), dict) and quantization:
            if modules is None:
                raise ValueError("a quantized config needs the names of its model's modules")
            place["quantization_config"] = renumber(quantization, modules, sources)
    for stale in ("transformers_version", "_name_or_path"):
        whole.pop(stale, None)
    try:
        new = type(config).from_dict(copy.deepcopy(whole))
    except Exception as error:
        message = one_line(error.__cause__ or error)
        raise Refused(f"{type(config).__name__} does not accept this plan: “{message}”.") from error
    _carry_implementations(config, new)
    got = new.to_dict()
    _check_unchanged(part, got[key] if key else got)
    return new


def edit(config: PreTrainedConfig, changes: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the config with some settings changed: depth, width, heads, vocabulary and the like.

    With another depth, lists with one entry per layer are continued in their pattern. Raises
    `Refused` for settings that the config doesn't have or its class doesn't accept.
    """
    whole = copy.deepcopy(config.to_dict())
    key = text_key(config)
    part = whole[key] if key else whole
    names = {**config.attribute_map}
    depth = next((part[f] for f in DEPTH_FIELDS if type(part.get(f)) is int), None)
    followed = {field for field, value in _followed(part).items() if part[field] == value}
    for field, value in changes.items():
        field = names.get(field, field)
        if field not in part:
            near = difflib.get_close_matches(field, part, n=3)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise Refused(f"A {config.model_type} config has no setting “{field[:60]}”.{hint}")
        if field in DEPTH_FIELDS and isinstance(value, (int, float)) and value > MAX_LAYERS:
            # Before any list is made that long, here or by the config's class.
            raise Refused(f"{field} is too large: no more than {MAX_LAYERS:,} layers are allowed.")
        if field in DEPTH_FIELDS and part[field] == depth and type(value) is int and value > 0:
            for other, old in part.items():
                if is_per_layer(other, old, depth):
                    part[other] = [old[i % depth] for i in range(value)]
        part[field] = value
    part.update((f, v) for f, v in _followed(part).items() if f in followed and f not in changes)
    for stale in ("transformers_version", "_name_or_path", "quantization_config"):
        whole.pop(stale, None)
    try:
        return type(config).from_dict(whole)
    except Exception as error:
        message = one_line(error.__cause__ or error)
        raise Refused(
            f"{type(config).__name__} does not accept these settings: “{message}”."
        ) from error


def quantization_of(config: PreTrainedConfig) -> dict[str, Any] | None:
    """A copy of the quantization config that transformers uses; None if there is none."""
    text = config.get_text_config(decoder=True)
    for part in (config, text):
        quantization = getattr(part, "quantization_config", None)
        if quantization is not None and hasattr(quantization, "to_dict"):
            quantization = quantization.to_dict()
        if isinstance(quantization, dict) and quantization:
            return copy.deepcopy(quantization)
    return None


def unquantized(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config without its quantization: itself if there is none, otherwise a copy.

    Models are built only from such configs, since transformers would write the quantization of a
    multimodal config into its text config and so change the base's own.
    """
    parts = [config, *(getattr(config, key, None) for key in config.sub_configs)]
    if not any(hasattr(part, "quantization_config") for part in parts):
        return config
    config = copy.deepcopy(config)
    for part in (config, *(getattr(config, key, None) for key in config.sub_configs)):
        if part is not None and hasattr(part, "quantization_config"):
            del part.quantization_config
    return config


def _followed(part: Mapping[str, Any]) -> dict[str, int]:
    """Settings that have the value that follows from others by default."""
    heads, width = part.get("num_attention_heads"), part.get("hidden_size")
    out = {}
    if type(heads) is int and heads > 0:
        if type(width) is int and "head_dim" in part:
            out["head_dim"] = width // heads
        if "num_key_value_heads" in part:
            out["num_key_value_heads"] = heads
    return out


def _carry_implementations(old: PreTrainedConfig, new: PreTrainedConfig) -> None:
    """Carry over the kernels that the base uses. Setting one sets those of nested configs too,
    which may differ (a vision tower's), so nested ones are set last."""
    for name in _IMPLEMENTATIONS:
        if getattr(old, name, None) is not None:
            setattr(new, name, getattr(old, name))
    for key in old.sub_configs:
        inner, other = getattr(old, key, None), getattr(new, key, None)
        if isinstance(inner, PreTrainedConfig) and isinstance(other, PreTrainedConfig):
            _carry_implementations(inner, other)


def config_key(config: PreTrainedConfig) -> tuple:
    """A key that configs have in common if transformers builds the same model from them."""
    inner = (getattr(config, key, None) for key in config.sub_configs)
    return (
        type(config),
        repr(config.to_dict()),
        *(getattr(config, name, None) for name in _IMPLEMENTATIONS),
        *(config_key(part) for part in inner if isinstance(part, PreTrainedConfig)),
    )


def text_key(config: PreTrainedConfig) -> str | None:
    """The key of the text model's config inside a multimodal one, or None."""
    text = config.get_text_config(decoder=True)
    return next((k for k in config.sub_configs if getattr(config, k, None) is text), None)


def is_per_layer(key: str, value: Any, depth: int) -> bool:
    """Is this field of a config a list with one entry for each of `depth` layers?"""
    return (
        isinstance(value, (list, tuple))
        and len(value) == depth
        and key not in NOT_PER_LAYER
        and not key.startswith(NOT_PER_LAYER_STARTS)
        and not key.endswith(NOT_PER_LAYER_ENDINGS)
    )


def _rewrite_dict(d: dict[str, Any], plan: list[int], depth: int) -> None:
    """Edit the text model's config dict in place."""
    if isinstance(d.get("per_layer_config"), dict):
        old = {int(k): v for k, v in d["per_layer_config"].items()}
        d["per_layer_config"] = {p: old[i] for p, i in enumerate(plan) if i in old}
    rewritten = _rewrite_schedules(d, plan, depth)
    for key, value in list(d.items()):
        if key in rewritten or key in NOT_PER_LAYER:
            continue
        if key.startswith(NOT_PER_LAYER_STARTS) or key.endswith(NOT_PER_LAYER_ENDINGS):
            continue
        if key in EXTRA_HEADS:
            d[key] = 0 if value else value
        elif key in INDEX_LISTS:
            if isinstance(value, (list, tuple)):
                first = INDEX_LISTS[key]
                d[key] = [p + first for p, i in enumerate(plan) if i + first in value]
        elif isinstance(value, (list, tuple)) and len(value) == depth:
            d[key] = [value[i] for i in plan]
    for key in DEPTH_FIELDS:
        if type(d.get(key)) is int and d[key] == depth:
            d[key] = len(plan)


def _rewrite_schedules(d: dict[str, Any], plan: list[int], depth: int) -> set[str]:
    """Rewrite schedules that configs express as a rule rather than as a list. Returns the keys that
    are done."""
    settled: set[str] = set()

    for key in ("first_k_dense_replace", "num_dense_layers"):
        if isinstance(d.get(key), int) and not d.get("mlp_layer_types"):
            d[key] = _prefix(d[key], plan, key)

    if isinstance(step := d.get("decoder_sparse_step"), int):
        # Qwen's mixtures: step 1 with an explicit list of dense layers can say every schedule.
        dense = set(d.get("mlp_only_layers") or ())
        kept = [p for p, i in enumerate(plan) if i in dense or (i + 1) % step]
        d.update(decoder_sparse_step=1, mlp_only_layers=kept)
        settled.add("mlp_only_layers")

    for kind in ("attn_layer", "expert_layer"):  # Jamba
        if f"{kind}_period" in d and "layers_block_type" not in d:
            period, offset = d[f"{kind}_period"], d[f"{kind}_offset"]
            flags = [i % period == offset for i in plan]
            d[f"{kind}_period"], d[f"{kind}_offset"] = _periodic(flags, kind)

    if "moe_layer_start_index" in d:  # Ernie 4.5
        start, end = d["moe_layer_start_index"], d["moe_layer_end_index"]
        end = depth - 1 if end == -1 else end
        every = d["moe_layer_interval"]
        moe = [p for p, i in enumerate(plan) if (i + 1) % every == 0 and start <= i <= end]
        if moe and moe != list(range(moe[0], moe[-1] + 1)):
            raise Refused(
                "This model's config allows only one contiguous block of layers with experts, and "
                f"this plan has them at positions {', '.join(map(str, moe))}. Keep them together."
            )
        d.update(
            moe_layer_interval=1,
            moe_layer_start_index=moe[0] if moe else len(plan),
            moe_layer_end_index=moe[-1] if moe else len(plan),
        )

    if d.get("block_types") and "attention_window_size" in d:  # RecurrentGemma repeats a tile
        tile = d["block_types"]
        d["block_types"] = [tile[i % len(tile)] for i in plan]

    if d.get("attention_types") and "attention_layers" in d:  # GPT-Neo
        d["attention_types"] = [[[d["attention_layers"][i]], 1] for i in plan]

    _check_shared_indices(d.get("indexer_types"), plan, depth)

    if shared := d.get("num_kv_shared_layers"):  # Gemma 3n and 4
        d["num_kv_shared_layers"] = _sharing(plan, depth - shared, d.get("layer_types"))

    if isinstance(d.get("kv_source_layers"), list):  # Mistral Large 4
        d["kv_source_layers"] = _kv_sources(d["kv_source_layers"], plan)
        settled.add("kv_source_layers")

    if d.get("rescale_every"):
        d["rescale_every"] = 0  # RWKV would rescale shared weights in place, by position
    if "scale_depth" in d:
        d["scale_depth"] *= math.sqrt(len(plan) / depth)  # MiniCPM3 divides it by √depth
    return settled


def _sharing(plan: list[int], first: int, kinds: list[str] | None) -> int:
    """How many layers reuse keys and values after the plan, if those from `first` on did before.

    They reuse those of the last layer of their kind before `first`, which must still be the last.
    """

    def producers(layers: Iterable[int]) -> dict[str | None, int]:
        return {kinds[i] if kinds else None: i for i in layers}

    before = [i for i in plan if i < first]
    after = plan[len(before) :]
    old, new = producers(range(first)), producers(before)
    needed = {kinds[i] if kinds else None for i in after}
    if any(i < first for i in after) or any(new.get(kind) != old.get(kind) for kind in needed):
        raise Refused(
            f"The layers from {first} on reuse the keys and values of the last layers before them, "
            f"{', '.join(map(str, sorted(old.values())))}. Those have to "
            "stay the last of their kind, with the ones that reuse them behind."
        )
    return len(after)


def _kv_sources(old: list[int], plan: list[int]) -> list[int]:
    """For each position, the one whose keys and values it uses: its own, or those of the last copy
    of the layer that its source takes them from."""
    result = []
    for position, layer in enumerate(plan):
        source = old[layer]
        places = [p for p in range(position + 1) if plan[p] == source]
        if not places:
            raise Refused(
                f"Layer {layer} reuses the keys and values of layer {source}, which has to come "
                "before it."
            )
        result.append(places[-1])
    return result


def _prefix(count: int, plan: list[int], key: str) -> int:
    """How many layers a rule “the first `count` are different” covers after the plan."""
    flags = [i < count for i in plan]
    if flags != sorted(flags, reverse=True):
        raise Refused(
            f"In this model the first {count} layers are of another kind ({key}), and the config "
            "can only say so of the first layers. Keep them together at the front."
        )
    return sum(flags)


def _periodic(flags: list[bool], kind: str) -> tuple[int, int]:
    """(period, offset) with flags[i] == (i % period == offset)."""
    for period in range(1, len(flags) + 2):
        for offset in range(period):
            if all((i % period == offset) == flag for i, flag in enumerate(flags)):
                return period, offset
    shape = "".join("x" if flag else "." for flag in flags)
    raise Refused(
        f"This model's config allows {kind}s at regular distances only, and this plan puts them "
        f"at the positions marked x: {shape}. Choose layers so that the distances stay equal."
    )


def _check_shared_indices(kinds: list[str] | None, plan: list[int], depth: int) -> None:
    """Check that layers which reuse an earlier layer's top-k indices still follow that layer."""
    if kinds is None or "shared" not in kinds:
        return

    def producers(order: Sequence[int]) -> list[int | None]:
        last: int | None = None
        out: list[int | None] = []
        for position, i in enumerate(order):
            last = position if kinds[i] == "full" else last
            out.append(last)
        return out

    before, after = producers(range(depth)), producers(plan)
    for p, i in enumerate(plan):
        producer = after[p]
        if producer is None or plan[producer] != before[i]:
            raise Refused(
                f"Layer {i} reuses the indices that layer {before[i]} selects, which would no "
                "longer be the one before it. Keep both, in this order."
            )


def _check_unchanged(asked: dict[str, Any], got: dict[str, Any]) -> None:
    """Some config classes repair what they are given: Gemma 4 wants a full last layer."""
    for key in LAYER_KINDS:
        if asked.get(key) is not None and list(got.get(key) or ()) != list(asked[key]):
            changed = [
                p
                for p, (a, b) in enumerate(zip(asked[key], got.get(key) or (), strict=False))
                if a != b
            ]
            if changed == [len(asked[key]) - 1]:
                kind = str(got[key][-1]).replace("_", " ")
                raise Refused(f"In this model a plan has to end with a {kind} layer.")
            raise Refused(
                "transformers would change the type of some layers of this plan "
                f"({key}, positions {', '.join(map(str, changed[:5])) or 'beyond its end'})."
            )
