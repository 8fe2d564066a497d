"""Apply a plan to the names of tensors, in memory and on disk.

transformers' own loader translates the names on disk into those in memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)

from surgery.architecture.config.rewrite import EXTRA_HEADS
from surgery.errors import BaseError, Refused

from .anatomy import Anatomy

# Buffers stored in older checkpoints that transformers now computes.
_OLD_BUFFER = re.compile(
    r"(^|\.)(masked_bias|causal_mask|inv_freq|cos_cached|sin_cached|position_ids)$"
)
_FIRST_NUMBER = re.compile(r"(.*?(?:^|\.))(\d+)(\..*)")


def memory_names(anatomy: Anatomy, sources: Sequence[int]) -> dict[str, str]:
    """{name in the patient: name in the base} for every tensor of the patient."""
    at = positions(sources)
    names = {}
    for name in anatomy.tensors:
        if not (where := anatomy.layer_of(name)):
            names[name] = name
            continue
        path, index, rest = where
        for p in at.get(index, ()):
            names[f"{path}.{p}.{rest}"] = name
    return names


def disk_names(
    anatomy: Anatomy, stored: Iterable[str], sources: Sequence[int]
) -> dict[str, tuple[str, int | None]]:
    """{name in the new checkpoint: (name in the base's, position in the plan or None)}.

    Tensors of layers past the stack (heads that predict further tokens) are left out. Raises
    `Refused` if a stored tensor's name does not carry its layer's number.
    """
    at = positions(sources)
    translate = loader_names(anatomy)
    out: dict[str, tuple[str, int | None]] = {}
    for name, where in disk_layers(anatomy, stored).items():
        if where is None:
            out[name] = (name, None)
            continue
        head, index, rest = where
        for p in at.get(index, ()) or _sharers(anatomy, translate(name), at):
            out[f"{head}{p}{rest}"] = (name, p)
    return out


def _sharers(anatomy: Anatomy, name: str, at: dict[int, list[int]]) -> list[int]:
    """The first position of a layer that shares the tensor `name` of a layer that is gone.

    A tensor that several layers share (Zamba's one attention block) is stored once, in the first
    of them; without that layer, the next one has to bring it.
    """
    result = [at[i][0] for i in other_layers(anatomy, name) if i in at]
    return [min(result)] if result else []


def other_layers(anatomy: Anatomy, name: str) -> list[int]:
    """The layers that share a layer's tensor, besides its own. `name` is the model's."""
    tensor, where = anatomy.tensors.get(name), anatomy.layer_of(name)
    if tensor is None or where is None:
        return []
    others = (anatomy.layer_of(other) for other in anatomy.names_of(tensor) if other != name)
    return [other[1] for other in others if other and other[2] == where[2]]


def disk_layers(anatomy: Anatomy, stored: Iterable[str]) -> dict[str, tuple[str, int, str] | None]:
    """{stored name: (text before the layer's number, layer, text after it), or None outside
    layers}."""
    translate = loader_names(anatomy)
    heads: set[str] = set()
    result: dict[str, tuple[str, int, str] | None] = {}
    for name in stored:
        where = anatomy.layer_of(translate(name))
        if where is None:
            result[name] = None
            continue
        m = _FIRST_NUMBER.fullmatch(name)
        if not m or int(m[2]) != where[1]:
            raise Refused(
                f"The stored tensor {name} belongs to layer {where[1]} but does not say so in its "
                "name; this checkpoint can't be renumbered safely."
            )
        heads.add(m[1])
        result[name] = (m[1], int(m[2]), m[3])
    # Layers behind the stack are no part of the model, so the loader has no name for them.
    for name, where in result.items():
        m = _FIRST_NUMBER.fullmatch(name)
        if where is None and m and m[1] in heads and int(m[2]) >= anatomy.stack.depth:
            result[name] = (m[1], int(m[2]), m[3])
    if not heads:
        raise Refused("None of the stored tensors belongs to a layer of this model.")
    return result


def disk_tables(anatomy: Anatomy, stored: Iterable[str]) -> dict[str, tuple[int, int]]:
    """{stored name: (dimension, entries per layer)} of packed per-layer tables."""
    if not anatomy.tables:
        return {}
    translate = loader_names(anatomy)
    return {
        name: anatomy.tables[new] for name in stored if (new := translate(name)) in anatomy.tables
    }


class Stored(Protocol):
    """What a file's header says about a tensor: safetensors' name of its dtype, and its shape."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_stored(anatomy: Anatomy, stored: Mapping[str, Stored]) -> None:
    """Do the stored tensors belong to the model that the config describes?

    Raises `BaseError` for a config that says something else than its checkpoint: a tensor that is
    missing, of another shape, in a layer that the config does not know of, or a weight or bias that
    the layer was trained with and the config leaves out.
    """
    translate = loader_names(anatomy)
    layers = disk_layers(anatomy, stored)
    passed_over = _passed_over(anatomy)
    split_off = _split_off(anatomy)
    present = set()
    for name, tensor in stored.items():
        new, shape, where = translate(name), tensor.shape, layers[name]
        expected = anatomy.tensors.get(new)
        if expected is None:
            if where and where[1] >= anatomy.stack.depth and not _extra_heads(anatomy):
                raise BaseError(
                    f"The checkpoint does not fit its config: {name} belongs to layer "
                    f"{where[1]}, and the config says {anatomy.stack.depth} layers."
                )
            if (
                where
                and where[1] < anatomy.stack.depth
                and _computed_with(anatomy, new)
                and not passed_over(new)
            ):
                raise BaseError(
                    f"The checkpoint does not fit its config: it has {name}, and the "
                    f"{anatomy.config.model_type} model that the config describes would run "
                    "without it. Look at model_type and at the settings for biases and norms."
                )
            continue
        present.add(id(expected))
        present |= {id(anatomy.tensors[other]) for other in split_off(name)}
        # Quantization packs matrices into other dtypes; what is in these stays as it is.
        plain = not anatomy.quantized or tensor.dtype in ("BF16", "F16", "F32")
        if plain and name in (new, new.partition(".")[2]) and tuple(expected.shape) != tuple(shape):
            raise BaseError(
                f"The checkpoint does not fit its config: {name} is stored as {list(shape)}, and "
                f"the config asks for {list(expected.shape)}."
            )
    if anatomy.quantized:  # a weight is stored in several tensors of names and shapes of its own
        owners = {translate(name).rpartition(".")[0] for name in stored}
        owners |= {owner.rpartition(".")[0] for owner in owners}  # “weight.absmax”
        present |= {id(t) for n, t in anatomy.tensors.items() if n.rpartition(".")[0] in owners}
    missing = [n for n, t in anatomy.model.named_parameters() if id(t) not in present]
    head = anatomy.model.get_output_embeddings()
    if head is not None and missing and all(anatomy.tensors[n] is head.weight for n in missing):
        made_for = ", ".join(map(str, anatomy.whole.architectures or ())) or "another task"
        raise BaseError(
            f"The checkpoint has no {missing[0]}, the head that turns hidden states into logits, "
            f"so it is not a language model ({made_for[:80]}). Use the model it was made from."
        )
    if missing:
        raise BaseError(
            f"The checkpoint does not fit its config: it has no tensor for {missing[0]} "
            f"({len(missing)} in all are missing)."
        )


def stored_twice(anatomy: Anatomy, stored: Mapping[str, Stored]) -> list[tuple[str, str]]:
    """Pairs of stored tensors that are one tensor of the model by its config, such as embeddings
    and head. transformers ties them if they are equal, and keeps both apart if they aren't."""
    translate = loader_names(anatomy)
    first: dict[int, str] = {}
    pairs = []
    for name, entry in stored.items():
        tensor = anatomy.tensors.get(translate(name))
        if tensor is None or anatomy.layer_of(translate(name)):
            continue
        if tuple(tensor.shape) != tuple(entry.shape):
            continue  # part of a tensor: experts stored separately
        if (other := first.setdefault(id(tensor), name)) != name:
            pairs.append((other, name))
    return pairs


def old_buffers(anatomy: Anatomy, stored: Mapping[str, Stored]) -> set[str]:
    """Names of stored tensors that transformers ignores because it now computes them, such as
    GPT-2's causal masks: both the names on disk and those given by the loader."""
    translate = loader_names(anatomy)
    result = set()
    for name, tensor in stored.items():
        new = translate(name)
        owner, _, leaf = new.rpartition(".")
        square = len(tensor.shape) >= 2 and tensor.shape[-1] == tensor.shape[-2]
        mask = square and math.prod(tensor.shape[:-2]) == 1 and leaf == "bias"
        if new in anatomy.tensors or (mask and f"{owner}.weight" in anatomy.tensors):
            continue
        if mask or _OLD_BUFFER.search(new):
            result |= {name, new}
    return result


def _computed_with(anatomy: Anatomy, name: str) -> bool:
    """Whether a model with this tensor, unlike the one at hand, would compute with it. Buffers in
    old checkpoints, such as GPT-2's masks called `attn.bias`, don't count."""
    owner, _, leaf = name.rpartition(".")
    if anatomy.quantized:
        return False  # packed weights come with tensors of their own
    return leaf == "weight" or (leaf == "bias" and f"{owner}.weight" in anatomy.tensors)


def _passed_over(anatomy: Anatomy) -> Callable[[str], bool]:
    """A predicate of the names that the model ignores in checkpoints. Patterns with layer numbers
    are left out: they are those of the published models."""
    literal = {
        pattern
        for module in anatomy.model.modules()
        for pattern in getattr(type(module), "_keys_to_ignore_on_load_unexpected", None) or ()
        if re.search(r"\d", pattern)
    }
    patterns = set(anatomy.model._keys_to_ignore_on_load_unexpected or ()) - literal
    return lambda name: any(re.search(pattern, name) for pattern in patterns)


def _extra_heads(anatomy: Anatomy) -> bool:
    text = anatomy.config.get_text_config(decoder=True)
    return any(getattr(text, key, 0) for key in EXTRA_HEADS)


def sibling(name: str, layer: int) -> str:
    """The stored name of the same tensor in another layer."""
    return _FIRST_NUMBER.sub(rf"\g<1>{layer}\g<3>", name)


def behind_number(name: str) -> str:
    """A stored name without its layer's prefix."""
    return _FIRST_NUMBER.sub(r"\g<3>", name).removeprefix(".")


def positions(sources: Sequence[int]) -> dict[int, list[int]]:
    """{source layer: its positions in the plan}."""
    at: dict[int, list[int]] = {}
    for p, i in enumerate(sources):
        at.setdefault(i, []).append(p)
    return at


def _split_off(anatomy: Anatomy) -> Callable[[str], list[str]]:
    """A function from a stored name to the further tensors that `from_pretrained` makes of it, as
    where queries, keys and values are stored as one: those besides the one of `loader_names`."""
    renamings, converters = _transforms(anatomy)
    prefix = anatomy.model.base_model_prefix
    split = [
        (pattern, converter.target_patterns)
        for converter in converters
        for pattern in converter.source_patterns
        if len(converter.target_patterns) > 1
    ]

    def others(name: str) -> list[str]:
        if not split:
            return []
        new, matched = rename_source_key(name, renamings, converters, prefix, anatomy.tensors)
        made = (
            new.replace(targets[0], target)
            for pattern, targets in split
            if pattern == matched
            for target in targets[1:]
        )
        return [other for other in made if other in anatomy.tensors]

    return others


def _transforms(anatomy: Anatomy) -> tuple[list[WeightRenaming], list[WeightConverter]]:
    """What `from_pretrained` does to names, and to names and tensors."""
    transforms = get_model_conversion_mapping(anatomy.model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    return renamings, [t for t in transforms if isinstance(t, WeightConverter)]


def conversions(anatomy: Anatomy) -> Callable[[str], int]:
    """A function from a stored name to the number of tensors that `from_pretrained` computes from
    it and others stored beside it; 0 if it takes the tensor as it is."""
    renamings, converters = _transforms(anatomy)
    prefix = anatomy.model.base_model_prefix
    counts = {p: len(c.target_patterns) for c in converters for p in c.source_patterns}

    def count(name: str) -> int:
        _, matched = rename_source_key(name, renamings, converters, prefix, anatomy.tensors)
        return counts[matched] if matched is not None else 0

    return count


def loader_names(anatomy: Anatomy):
    """A function from a stored name to the model's own, as `from_pretrained` translates it."""
    renamings, converters = _transforms(anatomy)
    prefix = anatomy.model.base_model_prefix

    def translate(name: str) -> str:
        new, _ = rename_source_key(name, renamings, converters, prefix, anatomy.tensors)
        return name if new not in anatomy.tensors and name in anatomy.tensors else new

    return translate
