"""Compare two modules: types, attributes and computed buffers.

Some attributes follow the depth by right: a layer's index, the depth itself, and copies of config
fields that were rewritten. Which modules are compared, and what a difference means, is in `checks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from surgery.architecture.config.rewrite import DEPTH_FIELDS, LAYER_KINDS
from surgery.seeded_random import Seeded

from .modules import modules_by_name

# How modules spell their own position. What they do with it is looked into by `position`.
INDEX_FIELDS = ("layer_idx", "layer_id", "layer_num", "layer_number", "layer_index", "seed")
# Attributes that tell what was seen last or how a module was made, not what it computes.
_IGNORED = {
    *DEPTH_FIELDS,
    "training",
    "_is_hf_initialized",
    "original_max_seq_len",
    "max_seq_len_cached",
    "_version",
}
_PLAIN = (int, float, complex, bool, str, bytes, type(None), torch.dtype, range)


@dataclass(frozen=True)
class ModuleDiff:
    """Compare modules of two models that differ by a plan: `old`, `new`, and the source layers of
    the plan."""

    old: PreTrainedModel
    new: PreTrainedModel
    sources: Sequence[int]
    depth: int

    def difference(
        self, x: nn.Module, y: nn.Module, *, indexed: bool = False, packed: bool = False
    ) -> str | None:
        """Describe what distinguishes `y` from `x`; None if nothing does. Children are not
        compared.

        `indexed`: both are parts of layers, whose own index may differ. `packed`: they hold a table
        with a block for each layer, whose sizes follow the depth.
        """
        if type(x) is not type(y):
            return f"{type(x).__name__} became {type(y).__name__}"
        is_model = isinstance(x, PreTrainedModel)
        for key in sorted((vars(x).keys() | vars(y).keys()) - _NOT_COMPARED):
            if indexed and key in INDEX_FIELDS:
                continue
            if is_model and (key in _ADMINISTRATION or key[0] == "_"):
                continue
            a, b = getattr(x, key, None), getattr(y, key, None)
            if a is b:
                continue
            if packed and type(a) is type(b) is int and a * len(self.sources) == b * self.depth:
                continue
            if not self._alike(a, b) and not self._settled(key, a, b):
                return f"{key} is {_short(a)}, then {_short(b)}"
        return None

    def _alike(self, a: Any, b: Any) -> bool:
        if isinstance(a, nn.Module) or isinstance(b, nn.Module):
            return True  # looked at in its own turn
        if isinstance(a, PreTrainedConfig) and isinstance(b, PreTrainedConfig):
            return self._alike_configs(a, b)
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.shape == b.shape and (a.is_meta or b.is_meta or torch.equal(a, b))
        if isinstance(a, float) and isinstance(b, float):
            return a == b or math.isclose(a, b, rel_tol=1e-12) or (a != a and b != b)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            return a.keys() == b.keys() and all(self._alike(a[k], b[k]) for k in a)
        if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
            return len(a) == len(b) and all(map(self._alike, a, b))
        if isinstance(a, (set, frozenset, _PLAIN)) or isinstance(b, _PLAIN):
            return a == b
        if callable(a) and callable(b):
            return getattr(a, "__qualname__", type(a)) == getattr(b, "__qualname__", type(b))
        return type(a) is type(b)

    def _alike_configs(self, a: PreTrainedConfig, b: PreTrainedConfig) -> bool:
        """Whether two configs are equal; the model's own config was rewritten as a whole."""
        if self._is_own(a, self.old) and self._is_own(b, self.new):
            return True
        one, two = a.to_dict(), b.to_dict()
        return one.keys() == two.keys() and all(
            k in _IGNORED
            or k in _PROVENANCE
            or self._alike(one[k], two[k])
            or self._settled(k, one[k], two[k])
            for k in one
        )

    @staticmethod
    def _is_own(config: PreTrainedConfig, model: PreTrainedModel) -> bool:
        """Is it the model's config, one nested in it, or a copy? Compared as dicts, since configs
        with per-layer settings don't support comparison."""
        if config is model.config:
            return True
        text = model.config.get_text_config(decoder=True)
        nested = (getattr(model.config, key) for key in model.config.sub_configs)
        return any(
            config is own or (type(config) is type(own) and config.to_dict() == own.to_dict())
            for own in (model.config, text, *nested)
        )

    def _settled(self, key: str, a: Any, b: Any) -> bool:
        """Whether `a` and `b` are copies of a config field, or of one entry per layer, that
        followed the plan."""
        if (
            isinstance(a, (list, tuple))
            and isinstance(b, (list, tuple))
            and len(a) == self.depth
            and len(b) == len(self.sources)
        ):
            return list(b) == [a[i] for i in self.sources]
        old, new = (m.config.get_text_config(decoder=True) for m in (self.old, self.new))
        if key in LAYER_KINDS and a and b and {*map(type, (*a, *b))} == {str}:
            return set(b) == set(a) - self._gone_kinds()  # the kinds that there are
        copied = isinstance(a, (list, tuple, dict)) and hasattr(old, key) and hasattr(new, key)
        if copied and a == getattr(old, key) and b == getattr(new, key):
            return True
        if isinstance(a, (set, frozenset)) and isinstance(b, (set, frozenset)):
            return b == a - self._gone_kinds()  # the set of layer types in the model
        if key == "store_full_length_kv" and hasattr(new, "num_kv_shared_layers"):
            return True  # already handled when the config was rewritten
        if isinstance(a, dict) and isinstance(b, dict):
            gone = self._gone_kinds()
            return bool(gone) and b == {k: v for k, v in a.items() if k not in gone}
        if type(a) is int and type(b) is int and "layer" in key:
            # A boundary between layers: the same ones lie before it.
            return all(i < a for i in self.sources[:b]) and all(i >= a for i in self.sources[b:])
        if a is True and b is False and key.startswith("has_"):  # “has_sliding_layers”
            return any(kind.partition("_")[0] in key for kind in self._gone_kinds())
        return b is None and self.is_gone(key)

    def is_gone(self, name: str) -> bool:
        """Whether a module outside the layers serves a kind of layer (“the rotary embedding of full
        attention”) of which the plan leaves none."""
        return any(kind in name for kind in self._gone_kinds())

    def _gone_kinds(self) -> set[str]:
        old, new = (m.config.get_text_config(decoder=True) for m in (self.old, self.new))
        before, after = (
            {v for k in LAYER_KINDS for v in getattr(c, k, None) or () if isinstance(v, str)}
            for c in (old, new)
        )
        return before - after


# What a config says about where it came from.
_PROVENANCE = {"_name_or_path", "transformers_version", "architectures", "dtype"}
# What transformers keeps on every model: where it came from, how it is spread and generates.
_ADMINISTRATION = {"name_or_path", "generation_config", "warnings_issued", "all_tied_weights_keys"}
# What torch keeps on every module.
_MACHINERY = set(vars(nn.Module()))
_NOT_COMPARED = _IGNORED | _MACHINERY


def computed_buffers(
    model: PreTrainedModel, skipped: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """The values that a reload would compute for the buffers that no checkpoint stores.

    `model` is on meta; these buffers become real on it, a few kB each. This is what
    `from_pretrained` does: build on meta, then let the model initialise what was not loaded. To
    save time, layers at the paths `skipped` that have no such buffer are not initialised.
    """
    computed = computed_names(model)
    with _without_layers(model, skipped, computed):
        modules = modules_by_name(model)
        for owner, leaf in computed:
            module = modules[owner]
            # Building called these initialised, on meta; their parents may be who computes them.
            for end in range(len(owner.split(".")) + 1):
                modules[".".join(owner.split(".")[:end])].__dict__["_is_hf_initialized"] = False
            module._buffers[leaf] = torch.zeros_like(module.get_buffer(leaf), device="cpu")
        for module in modules.values():  # what is stored need not be drawn: that takes longest
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and name not in module._non_persistent_buffers_set:
                    vars(tensor)["_is_hf_initialized"] = True
        with Seeded(0), torch.no_grad():
            model.initialize_weights()
        return {
            f"{owner}.{leaf}".lstrip("."): modules[owner].get_buffer(leaf)
            for owner, leaf in computed
        }


@contextmanager
def _without_layers(
    model: nn.Module, paths: Sequence[str], computed: Sequence[tuple[str, str]]
) -> Iterator[None]:
    """Within, the model lacks the layers at these paths that have no `computed` buffer."""
    kept: list[tuple[nn.Module, dict[str, nn.Module | None]]] = []
    owners = [owner + "." for owner, _ in computed]
    try:
        for path in paths:
            layers = model.get_submodule(path)
            kept.append((layers, layers._modules))
            layers._modules = {
                name: layer
                for name, layer in layers._modules.items()
                if any(owner.startswith(f"{path}.{name}.") for owner in owners)
            }
        yield
    finally:
        for layers, modules in kept:
            layers._modules = modules


def computed_names(model: nn.Module) -> list[tuple[str, str]]:
    """The buffers that no checkpoint stores, each as (name of its module, its name there)."""
    return [
        (name, leaf)
        for name, module in modules_by_name(model).items()
        for leaf in sorted(module._non_persistent_buffers_set)
        if module._buffers.get(leaf) is not None
    ]


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "…"
