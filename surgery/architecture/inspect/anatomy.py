"""The base on the meta device: which modules are its decoder layers, and what else follows depth.

All of it is found by looking at the model that transformers builds, not in a table of model types.
Reads no weights.
"""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from surgery.architecture.config.rewrite import DEPTH_FIELDS, quantization_of, rewrite, unquantized
from surgery.architecture.inspect.layer_list import layer_list
from surgery.errors import Refused, one_line
from surgery.lazy_property import lazy_property
from surgery.memory.garbage import uncollected
from surgery.plan import MAX_LAYERS
from surgery.progress import Turn, current

from .identity_proof import identity_layers
from .layer_inputs import LayerInputs, layer_inputs, layer_outputs
from .loader import auto_class
from .meta import Unfilled, cached_length
from .module_diff import computed_buffers
from .purpose import check_causal, check_config

# Building a model sets torch's default dtype for the whole process while it lasts.
_building = Turn("Waiting for another model to be built")


@dataclass(frozen=True)
class Stack:
    """The decoder layers: ModuleLists that run in step, the one with most parameters first.

    Most models have one, `model.layers`; XLM keeps attention, norms and MLPs in four.
    """

    paths: tuple[str, ...]
    depth: int


@dataclass(frozen=True)
class Anatomy:
    """A model without weights, and where its layers are.

    `whole` is the config as it was found. Some classes take a part of it (the text model of a
    multimodal one), which is then the model's own `config`.
    """

    model: PreTrainedModel = field(repr=False)
    stack: Stack
    whole: PreTrainedConfig = field(repr=False)

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Anatomy:
        """Build the config's class on the meta device and find its layers.

        Raises `Refused` if it is not a decoder, can't be built, or has no stack of layers of the
        config's depth.
        """
        check_config(config)
        model = build_meta(config)
        check_causal(model)
        return cls(model, find_stack(model), config)

    @lazy_property
    def quantized(self) -> str | None:
        """How the stored weights are quantized (“fp8”, “gptq”, …); None if they aren't. The model
        here is the unquantized one, since shapes on meta need no kernels."""
        quantization = quantization_of(self.whole)
        return str(quantization.get("quant_method", "in an unnamed way")) if quantization else None

    @property
    def config(self) -> PreTrainedConfig:
        """The config that the model was built from: for some classes a part of the file's."""
        return self.model.config

    @lazy_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and persistent buffers by name, on meta. Tied ones are one object."""
        return dict(self.model.state_dict(keep_vars=True))

    @lazy_property
    def _names(self) -> dict[int, list[str]]:
        names: dict[int, list[str]] = {}
        for name, tensor in self.tensors.items():
            names.setdefault(id(tensor), []).append(name)
        return names

    def names_of(self, tensor: torch.Tensor) -> list[str]:
        """All names of one of `tensors`: more than one where weights are tied."""
        return self._names[id(tensor)]

    @lazy_property
    def sharing_layers(self) -> set[frozenset[int]]:
        """Groups of layers that have a parameter in common."""
        users: dict[int, set[int]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if where := self.layer_of(name):
                users.setdefault(id(parameter), set()).add(where[1])
        return {frozenset(group) for group in users.values() if len(group) > 1}

    @lazy_property
    def tables(self) -> dict[str, tuple[int, int]]:
        """Packed per-layer tables: name -> (dimension, entries per layer).

        Some models keep one slice per layer inside a tensor that lies outside the layers (Gemma's
        per-layer embeddings). They are found by building once more with one layer repeated: what
        else grew follows the depth.
        """
        depth = self.stack.depth
        grown, length = self._at_another_depth()
        result = {}
        for name, old in self.tensors.items():
            new = grown.get(name)
            if new is None or self.layer_of(name) or new.shape == old.shape:
                continue
            dims = [d for d in range(old.dim()) if old.shape[d] != new.shape[d]]
            if len(dims) != 1 or new.shape[dims[0]] * depth != old.shape[dims[0]] * length:
                raise Refused(
                    f"The shape of {name} depends on the number of layers, but not in equal parts "
                    "per layer. This model can't be operated on."
                )
            result[name] = (dims[0], old.shape[dims[0]] // depth)
        return result

    def _at_another_depth(self) -> tuple[dict[str, torch.Tensor], int]:
        """The tensors of a model with other than the base's layers, and how many it has."""
        depth = self.stack.depth
        whole = range(depth)
        for sources in ([*whole, depth - 1], [*whole, *whole], [0, *whole], [*whole][:-1]):
            with contextlib.suppress(Refused):
                model = build_meta(rewrite(unquantized(self.whole), sources, depth))
                return model.state_dict(), len(sources)
        raise Refused(
            "This model's config doesn't allow a different number of layers, so it can't be "
            "operated on."
        )

    @lazy_property
    def computed(self) -> dict[str, torch.Tensor]:
        """The buffers that no checkpoint stores, as they are computed when the base is loaded."""
        return computed_buffers(build_meta(self.whole))

    @lazy_property
    def identity_layers(self) -> frozenset[int]:
        """Layers that are proven to be the identity once their output projections are zero."""
        # With a config of its own: the proof sets how experts are computed.
        return identity_layers(build_meta(copy.deepcopy(self.whole)), self.stack.paths)

    @lazy_property
    def layer_inputs(self) -> LayerInputs | None:
        """What each layer is called with; None if it can't be recorded on meta."""
        if self.layer_outputs is None:
            return None
        return layer_inputs(build_meta(self.whole), self.stack.paths[0], self.layer_outputs)

    @lazy_property
    def cached_length(self) -> int | None:
        """The length that the cache reports after three tokens; None if it can't be asked."""
        return cached_length(build_meta(self.whole))

    @lazy_property
    def approved(self) -> OrderedDict[tuple[int, ...], None]:
        """The last plans that passed every check, so that a save need not check again."""
        return OrderedDict()

    @lazy_property
    def skeletons(self) -> OrderedDict[tuple, PreTrainedModel | None]:
        """Models of the last plans by `config_key`, on meta and as they were built, to be copied;
        None for one that can't be."""
        return OrderedDict()

    @lazy_property
    def layer_outputs(self) -> list[Any] | None:
        """What each layer returns on meta; None if it can't be recorded."""
        return layer_outputs(build_meta(self.whole), self.stack.paths[0])

    def is_tower(self, name: str) -> bool:
        """Is this parameter part of a vision or audio tower, or of its projector?"""
        if self.layer_of(name):
            return False
        text = self.config.get_text_config(decoder=True)
        owner = name.rpartition(".")[0]
        if _owner_type(self.model, f"{owner}.") not in (self.config.model_type, text.model_type):
            return True
        heads = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        outside = self.text_path and not f"{owner}.".startswith(f"{self.text_path}.")
        return bool(outside) and self.model.get_submodule(owner) not in heads

    @lazy_property
    def text_path(self) -> str:
        """The module path of a multimodal model's text model; empty for other models."""
        text = self.config.get_text_config(decoder=True)
        if text is self.config:
            return ""
        parts = self.stack.paths[0].split(".")
        paths = (".".join(parts[:end]) for end in range(1, len(parts)))
        return next(
            (p for p in paths if getattr(self.model.get_submodule(p), "config", None) is text), ""
        )

    def layer_of(self, name: str) -> tuple[str, int, str] | None:
        """(path of the stack, layer, rest of the name) of a tensor's name; None outside layers."""
        for path in self.stack.paths:
            if name.startswith(path + "."):
                index, _, rest = name[len(path) + 1 :].partition(".")
                return (path, int(index), rest) if index else None
        return None

    @lazy_property
    def modules(self) -> dict[str, tuple[str, int, str] | None]:
        """{name of a module with a weight matrix: (prefix, layer number, suffix), or None outside
        the layers}: the modules that a quantization config can name."""
        result: dict[str, tuple[str, int, str] | None] = {}
        for name, tensor in self.tensors.items():
            owner = name.rpartition(".")[0]
            if tensor.dim() < 2:
                continue
            where = self.layer_of(name)
            rest = f".{where[2]}".rpartition(".")[0] if where else ""
            result[owner] = (f"{where[0]}.", where[1], rest) if where else None
        return result

    @lazy_property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each layer, in a word or two, if layers differ; otherwise empty strings."""
        text = self.config.get_text_config(decoder=True)
        parts = []
        for key in ("layer_types", "mlp_layer_types", "layers_block_type"):
            values = getattr(text, key, None)
            if isinstance(values, (list, tuple)) and len(values) == self.stack.depth:
                parts.append([str(v).replace("_attention", "").replace("_", " ") for v in values])
        names = [" · ".join(words) for words in zip(*parts, strict=True)] if parts else []
        if not names:
            layers = layer_list(self.model, self.stack.paths[0])
            names = [" · ".join(sorted({type(m).__name__ for m in x.children()})) for x in layers]
        return tuple(names) if len(set(names)) > 1 else ("",) * self.stack.depth


def build_meta(config: PreTrainedConfig) -> PreTrainedModel:
    """Build the model of a config on the meta device: names, shapes and types, no memory.

    Uses torch.device("meta") rather than accelerate's init_empty_weights, which does not tie
    weights. The model is built in float32, torch's default, so that a build in one thread can't
    change the dtype that another thread computes in.
    """
    original, config = config, unquantized(config)
    deepest = max(_depths(config), default=0)
    if deepest > MAX_LAYERS:
        raise Refused(
            f"The config says {deepest:,} layers, and no more than {MAX_LAYERS:,} are allowed."
        )
    try:
        with _building.taken(current()), uncollected(), torch.device("meta"), Unfilled():
            declared = config.dtype  # read in turn: a build in another thread replaces it meanwhile
            model = auto_class(config).from_config(config, dtype=torch.float32)
            text = model.config.get_text_config(decoder=True)
            for part in (original, config, model.config, text):
                part.dtype = declared
    except Refused:
        raise
    except Exception as error:
        message = one_line(error)
        raise Refused(
            f"transformers can't build a {config.model_type} model from this config: “{message}”. "
            "Check its settings."
        ) from error
    return model.eval()


def _depths(config: PreTrainedConfig) -> set[int]:
    """Every number in the config that may be its depth."""
    return {
        value
        for part in (config, config.get_text_config(decoder=True))
        for key in DEPTH_FIELDS
        if isinstance(value := getattr(part, key, None), int)
    }


def find_stack(model: PreTrainedModel) -> Stack:
    """Find the decoder layers: the ModuleList as long as the config says, with most parameters.
    Raises `Refused`."""
    text = model.config.get_text_config(decoder=True)
    depths = _depths(model.config)
    types = {model.config.model_type, text.model_type}
    lists: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.ModuleList)
            and len(module)
            and not any(name.startswith(outer + ".") for outer in lists)
        ):
            lists[name] = module
    sizes = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in lists.items()
        if len(module) in depths and _owner_type(model, name) in types
    }
    if not sizes:
        raise Refused(
            f"No stack of layers as long as this config's depth was found in "
            f"{type(model).__name__}; it can't be operated on."
        )
    main = max(sizes, key=sizes.__getitem__)
    parent, depth = main.rpartition(".")[0], len(lists[main])
    siblings = (
        name
        for name in sizes
        if name != main and name.rpartition(".")[0] == parent and len(lists[name]) == depth
    )
    return Stack((main, *siblings), depth)


def _owner_type(model: PreTrainedModel, name: str) -> str | None:
    """The model type of the config around a module: tells a text stack from a vision tower."""
    parts = name.split(".")
    for end in range(len(parts) - 1, -1, -1):
        config = getattr(model.get_submodule(".".join(parts[:end])), "config", None)
        if model_type := getattr(config, "model_type", None):
            return model_type
    return None
