"""Read adapter_config.json: scales and ranks. Refuse all that a merge could get wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from surgery.errors import BaseError

# Initialisations that leave the base's weights as they are (peft/tuners/lora/layer.py).
_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
# Initialisations that train against changed weights, which the adapter doesn't hold.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_MERGE_FIRST = (
    "Merge it where it was trained (PEFT: `merge_and_unload`, then `save_pretrained`) and open the "
    "result."
)
# Settings that change what the adapter computes, in ways that no merge into weights can follow or
# that is not done here.
_REFUSED = {
    "alora_invocation_tokens": "it acts on some tokens alone (aLoRA), as no merged weight can",
    "arrow_config": "it routes tokens between adapters, as no merged weight can",
    "use_qalora": "it was trained for a quantized base (QALoRA)",
    "use_bdlora": "it has block-diagonal matrices (BD-LoRA)",
    "kasa_config": "it was trained on a base whose weights were truncated (KaSA)",
    "monteclora_config": "its matrices are sampled (MonteCLoRA)",
    "megatron_config": "it belongs to a model in Megatron's layout",
}
# Settings that say how it was trained, or which modules were chosen: the file shows these.
_IDLE = {
    *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type"),
    *("peft_version", "target_modules", "exclude_modules", "modules_to_save", "bias"),
    *("layers_to_transform", "layers_pattern", "lora_dropout", "fan_in_fan_out", "lora_bias"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config"),
    *("megatron_core", "qalora_group_size", "ensure_weight_tying", "runtime_config"),
}
# Settings that a merge is computed from.
_READ = {
    *("peft_type", "init_lora_weights", "r", "lora_alpha", "rank_pattern", "alpha_pattern"),
    *("use_rslora", "use_dora", "target_parameters", "trainable_token_indices"),
    "layer_replication",
}


@dataclass(frozen=True)
class Settings:
    """What a merge needs of a LoRA's config. `replication` are the ranges of the base's layers that
    make the adapter's stack, if it has one of its own; `tokens` are the trained rows by embedding;
    `some_layers` says that layers were chosen by their numbers."""

    rank: int
    alpha: float
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False
    dora: bool = False
    rounded: bool = False  # MiCA rounds the product before it is added
    parameters: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    replication: tuple[tuple[int, int], ...] = ()
    some_layers: bool = False
    trained_on: str = ""

    def rank_of(self, module: str) -> int:
        """The rank of a module's matrices."""
        return int(self.ranks.get(_key(self.ranks, module), self.rank))

    def scale_of(self, module: str) -> float:
        """The factor of B·A: α/r, or α/√r (arXiv 2312.03732)."""
        alpha = self.alphas.get(_key(self.alphas, module), self.alpha)
        rank = self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank

    def is_parameter(self, name: str) -> bool:
        """Whether a parameter was targeted by its own name rather than its module's."""
        return any(name == one or name.endswith(f".{one}") for one in self.parameters)


def read_settings(fields: Mapping[str, Any], name: str) -> Settings:
    """Read the settings of the adapter called `name`. Raises `BaseError` for what can't be merged
    right."""
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise BaseError(f"{name} is not a LoRA adapter but {str(kind)[:40]}. {_MERGE_FIRST}")
    initial = fields.get("init_lora_weights", True)
    if isinstance(initial, str) and initial.lower().startswith(_CHANGES_BASE):
        raise BaseError(
            f"{name} was trained on changed weights of its base (init_lora_weights is "
            f"{initial[:40]}), which it does not hold. Save it with PEFT's "
            "`path_initial_model_for_weight_conversion`, or merge it where it was trained."
        )
    if initial not in _INITIALISATIONS:
        raise _unknown(name, "init_lora_weights", initial)
    for key, why in _REFUSED.items():
        if fields.get(key) not in (None, False):
            raise BaseError(f"{name} can't be merged: {why} ({key}). {_MERGE_FIRST}")
    known = {*_IDLE, *_REFUSED, *_READ}
    for key, value in fields.items():
        if key not in known and value not in (None, False, "", [], {}):
            raise _unknown(name, key, value)
    try:
        return Settings(
            rank=_positive(fields.get("r", 8)),
            alpha=float(fields.get("lora_alpha", 8)),
            ranks=_patterns(fields.get("rank_pattern"), _positive),
            alphas=_patterns(fields.get("alpha_pattern"), float),
            rank_stabilised=bool(fields.get("use_rslora")),
            dora=bool(fields.get("use_dora")),
            rounded=initial == "mica",
            parameters=tuple(map(str, fields.get("target_parameters") or ())),
            tokens=_tokens(fields.get("trainable_token_indices")),
            replication=tuple(_range(r) for r in fields.get("layer_replication") or ()),
            some_layers=_chooses_layers(fields),
            trained_on=str(fields.get("base_model_name_or_path") or ""),
        )
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise BaseError(f"The adapter_config.json of {name} is broken: {error}.") from error


def _key(patterns: Mapping[str, Any], module: str) -> str:
    """The pattern that a module's name ends with, as PEFT's `get_pattern_key` finds it."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)


def _patterns(entries: Any, value: Callable[[Any], Any]) -> dict[str, Any]:
    """Values by regular expressions of module names. Raises `re.error`, too."""
    for pattern in entries or {}:
        re.compile(pattern)
    return {pattern: value(one) for pattern, one in (entries or {}).items()}


def _positive(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"a rank is {value!r}")
    return value


def _range(value: Any) -> tuple[int, int]:
    start, end = value
    if type(start) is not int or type(end) is not int:
        raise ValueError(f"layer_replication has {value!r}")
    return start, end


def _chooses_layers(fields: Mapping[str, Any]) -> bool:
    named = [fields.get(f"{which}_modules") for which in ("target", "exclude")]
    named += [fields.get("target_parameters"), fields.get("layers_to_transform")]
    return any(character.isdigit() for character in str(named))


def _tokens(value: Any) -> dict[str, tuple[int, ...]]:
    """The trained rows by the embedding's name; "" for the input embedding."""
    if not value:
        return {}
    entries = value if isinstance(value, dict) else {"": value}
    result = {name: tuple(rows) for name, rows in entries.items()}
    if any(type(row) is not int or row < 0 for rows in result.values() for row in rows):
        raise ValueError("trainable_token_indices has values that are not token ids")
    return result


def _unknown(name: str, key: str, value: Any) -> BaseError:
    return BaseError(
        f"{name} sets {key[:60]} to {str(value)[:60]}, which is not known here, so a merge could "
        f"go wrong. {_MERGE_FIRST}"
    )
