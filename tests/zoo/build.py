"""A tiny random model of any type in transformers' causal-LM mapping."""

from __future__ import annotations

import dataclasses

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .sizes import SIZES, VOCAB
from .special import SPECIAL

TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_TOKENS = ("_token_id", "_token_index", "_index")


def config(model_type: str, special: dict | None = None) -> PreTrainedConfig:
    """The tiny config of a type, with what it needs besides the common sizes."""
    cls = CONFIG_MAPPING[model_type]
    return cls(**_fields(cls, SPECIAL.get(model_type, {}) if special is None else special))


def model(model_type: str, seed: int = 0) -> PreTrainedModel:
    """A random model of a type in the causal-LM mapping."""
    return drawn_model(config(model_type), AutoModelForCausalLM, seed)


def drawn_model(cfg: PreTrainedConfig, auto, seed: int = 0) -> PreTrainedModel:
    """A random model of a config. Every parameter is drawn apart, norms, biases and zeros too, and
    so is every stored bias, so that no two layers are alike by chance."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = auto.from_config(cfg, dtype=torch.float32)
        drawn = dict(made.named_parameters())
        drawn |= {name: b for name, b in made.named_buffers() if name.endswith("bias")}
        with torch.no_grad():
            for name in sorted(drawn):
                if drawn[name].is_floating_point():
                    drawn[name].add_(torch.randn(drawn[name].shape) * 0.05)
    return made.eval()


def tokens(length: int = 24, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Random tokens, shape (batch, length), none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 99, (batch, length), generator=generator)


def _fields(cls: type[PreTrainedConfig], special: dict) -> dict:
    """Keyword arguments of a config class: tiny sizes where it has such fields, nested ones too."""
    out: dict = {}
    nested = getattr(cls, "sub_configs_defaults", None) or {}
    token = 100  # special tokens past the vocabulary get one inside, each its own
    for field in dataclasses.fields(cls):
        name = field.name
        if name in nested or name in special:
            continue
        default = _default(field)
        if name in SIZES:
            out[name] = SIZES[name]
        elif name.endswith(_TOKENS) and isinstance(default, int) and default >= VOCAB:
            out[name], token = token, token + 1
        elif ("dropout" in name or "pdrop" in name) and isinstance(default, (int, float)):
            out[name] = 0.0
    for name, sub in nested.items():
        if sub.optional and name not in special:
            continue
        inner = sub.config_class
        if inner is AutoConfig or not hasattr(inner, "model_type"):
            inner = CONFIG_MAPPING[sub.model_type]
        out[name] = _fields(inner, special.get(name, {}))
        if inner.model_type:
            out[name]["model_type"] = sub.model_type
    out.update((k, v) for k, v in special.items() if v is not ... and k not in nested)
    return out


def _default(field: dataclasses.Field):
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()
