"""Is each layer of the new skeleton what its source layer was? Where it isn't: `Refused`.

Compares two models on the meta device, so it costs milliseconds and needs no weights. A difference
that remains after renumbering means that behaviour depends on a layer's position, and then the
patient would not be the base's own layers in another order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import Refused
from .anatomy import INDEX_FIELDS, Anatomy
from .config import DEPTH_FIELDS
from .names import memory_names

# Attributes that tell a layer where it is or what was seen last, not what it computes.
_IGNORED = {
    *INDEX_FIELDS,
    *DEPTH_FIELDS,
    "training",
    "_is_hf_initialized",
    "original_max_seq_len",
    "max_seq_len_cached",
    "_version",
}
_PLAIN = (int, float, bool, str, type(None))

# Families whose patients were compared, number by number, with the base's own layers in the
# plan's order. The checks below find what they know to look for; a family counts as right when it
# was seen to be.
VERIFIED = {
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gpt2",
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
}


def check_family(base: Anatomy) -> None:
    """The base's model type is one of those that were seen to come out right."""
    if base.config.model_type not in VERIFIED:
        raise Refused(
            f"{base.config.model_type} models have not been shown to come out right, so they are "
            f"not operated on. Shown so far: {', '.join(sorted(VERIFIED))}."
        )
    if getattr(base.config, "quantization_config", None) is not None:
        raise Refused("Quantized checkpoints are not operated on yet: use the unquantized one.")


def check_shapes(base: Anatomy, new: nn.Module, sources: Sequence[int]) -> None:
    """The plan's tensors are exactly those that the new model has, in name and shape."""
    names = memory_names(base, sources)
    have = {}
    for name, old in names.items():
        shape = list(base.tensors[old].shape)
        if old in base.tables:
            dim, block = base.tables[old]
            shape[dim] = block * len(sources)
        have[name] = tuple(shape)
    want = {name: tuple(tensor.shape) for name, tensor in new.state_dict().items()}
    problems = [
        f"{len(odd)} {what}, such as {min(odd)}"
        for what, odd in (
            ("missing", want.keys() - have.keys()),
            ("left over", have.keys() - want.keys()),
            ("of another shape", {n for n in want.keys() & have.keys() if want[n] != have[n]}),
        )
        if odd
    ]
    if problems:
        raise Refused(
            "The model that transformers builds for this plan does not fit the base's tensors: "
            + "; ".join(problems)
        )


def check_layers(base: Anatomy, new: nn.Module, sources: Sequence[int]) -> None:
    """Submodule types and plain attributes of every layer equal those of its source."""
    for path in base.stack.paths:
        old_layers, new_layers = base.model.get_submodule(path), new.get_submodule(path)
        if len(new_layers) != len(sources):
            raise Refused(f"transformers builds {len(new_layers)} layers, not {len(sources)}.")
        for p, i in enumerate(sources):
            if difference := _difference(
                old_layers[i], new_layers[p], base.stack.depth, len(sources)
            ):
                raise Refused(
                    f"Layer {i} would not act as before at position {p}: {difference}. In this "
                    "model a layer's behaviour depends on where it stands."
                )


def _difference(old: nn.Module, new: nn.Module, old_depth: int, new_depth: int) -> str | None:
    before, after = dict(old.named_modules()), dict(new.named_modules())
    if before.keys() != after.keys():
        return f"its parts differ ({', '.join(sorted(before.keys() ^ after.keys())[:3])})"
    for name, x in before.items():
        y = after[name]
        where = f"{name}." if name else ""
        if type(x) is not type(y):
            return f"{name or 'the layer'} is {type(x).__name__}, then {type(y).__name__}"
        for key in sorted((vars(x).keys() | vars(y).keys()) - _IGNORED):
            a, b = getattr(x, key, None), getattr(y, key, None)
            if not (_plain(a) and _plain(b)) or _same(a, b):
                continue
            if _per_layer_list(a, old_depth) and _per_layer_list(b, new_depth):
                continue  # a layer's own copy of a list that the config rewrite already settled
            return f"{where}{key} is {_short(a)}, then {_short(b)}"
    return None


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(x, _PLAIN) for x in value)
    return isinstance(value, _PLAIN)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or math.isclose(a, b, rel_tol=1e-12) or (a != a and b != b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return list(a) == list(b)
    return a == b


def _per_layer_list(value: Any, depth: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == depth


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
