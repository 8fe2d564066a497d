"""Find out which stored tensor each tensor of an adapter changes, from names and shapes alone.

An adapter names modules as its base had them in memory. Where transformers computes a module's
weight from several stored tensors, as with experts that lie apart on disk, the change is taken
apart again in the same way.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from transformers.core_model_loading import revert_weight_conversion
from transformers.pytorch_utils import Conv1D

from surgery.architecture.inspect.names import conversions, loader_names
from surgery.errors import BaseError

from .formulas import Added, Change, LowRank, Replaced, Rows, Sum, experts_delta
from .settings import Settings

if TYPE_CHECKING:
    from surgery.architecture import Anatomy
    from surgery.sources.source import Tensor

Read = Callable[[str], torch.Tensor]  # a tensor of the adapter by name
Make = Callable[[Read], Change]

FLOATS = ("F64", "F32", "F16", "BF16")
_LORA = re.compile(
    r"(?P<module>.+)\.(?:(?P<part>lora_[AB])\.(?P<leaf>weight|bias)|"
    r"(?P<embedding>lora_embedding_[AB])|(?P<magnitude>lora_magnitude_vector)(?:\.weight)?)"
)
_TOKENS = ".token_adapter.trainable_tokens_delta"
_PREFIX = "base_model.model."
_BASE = ".base_layer"
_MERGE = "Merge it where it was trained (PEFT: `merge_and_unload`) and open the result."


@dataclass(frozen=True)
class _Place:
    """The `stored` tensors that hold a tensor of the model; `model` is empty if they hold a part of
    one, and `computed` says that transformers computes it from them."""

    model: str
    stored: tuple[str, ...]
    computed: bool = False


@dataclass
class _Module:
    """The adapter's tensors for one module, by what they are: names in the adapter."""

    path: str
    parts: dict[str, str] = field(default_factory=dict)


def match(
    settings: Settings,
    adapter: Mapping[str, Tensor],
    anatomy: Anatomy,
    stored: Mapping[str, Tensor],
    name: str,
) -> dict[str, list[Make]]:
    """{stored tensor: its changes, in order} for the adapter called `name`. Raises `BaseError` if
    a tensor of the adapter has no place, or another shape than its place."""
    return _Match(settings, adapter, anatomy, stored, name).changes()


class _Recent:
    """The parts of the last two parameters that were taken apart: an expert's matrices lie beside
    one another on disk, and belong to two parameters of the model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[str, Mapping[str, torch.Tensor]] = {}

    def get(
        self, name: str, make: Callable[[Read], Mapping[str, torch.Tensor]], read: Read
    ) -> Mapping[str, torch.Tensor]:
        with self._lock:
            if name not in self._parts:
                while len(self._parts) > 1:
                    del self._parts[next(iter(self._parts))]
                self._parts[name] = make(read)
            return self._parts[name]


class _Match:
    def __init__(
        self,
        settings: Settings,
        adapter: Mapping[str, Tensor],
        anatomy: Anatomy,
        stored: Mapping[str, Tensor],
        name: str,
    ) -> None:
        self.settings, self.adapter, self.anatomy = settings, adapter, anatomy
        self.stored, self.name = stored, name
        self.translate = loader_names(anatomy)
        self.targets = conversions(anatomy)
        self.by_model: dict[str, list[str]] = {}
        for one in stored:
            self.by_model.setdefault(self.translate(one), []).append(one)
        self.replaced: dict[str, list[Make]] = {}
        self.added: dict[str, list[Make]] = {}
        self._recent = _Recent()
        self.layers: dict[str, set[int]] = {}  # those that are changed, by what is changed
        self.whole: dict[int, dict[str, str]] = {}  # tied tensors: {name in the model: adapter's}

    def changes(self) -> dict[str, list[Make]]:
        """All changes: what replaces a tensor comes before what is added to it."""
        modules: dict[str, _Module] = {}
        for key in self.adapter:
            plain = key.removeprefix(_PREFIX)
            if m := _LORA.fullmatch(plain):
                part = m["part"] or m["embedding"] or m["magnitude"]
                part += ".bias" if m["leaf"] == "bias" else ""
                module = modules.setdefault(m["module"], _Module(m["module"].replace(_BASE, "")))
                module.parts[part] = key
            elif plain.endswith(_TOKENS):
                self._tokens(plain.removesuffix(_TOKENS).replace(_BASE, ""), key)
            elif "lora_" in plain or "token_adapter" in plain:
                raise self._unmatched(key)
            else:
                self._replaced(plain.replace(f"{_BASE}.", "."), key)
        for module in modules.values():
            self._low_rank(module)
        self._check_tied()
        self._check_depth()
        names = dict.fromkeys((*self.replaced, *self.added))
        return {one: self.replaced.get(one, []) + self.added.get(one, []) for one in names}

    # ------------------------------------------------------------------ whole tensors and rows

    def _replaced(self, name: str, key: str) -> None:
        place = self._place(name)
        if place is None:
            raise self._unmatched(key)
        if place.computed:
            raise self._computed(key)
        for one in place.stored:
            self._check_shape(key, self.adapter[key].shape, self.stored[one].shape, place.model)
            self._check_float(one)
            self.replaced.setdefault(one, []).append(partial(_make_replaced, key))
        if (tensor := self.anatomy.tensors.get(place.model)) is not None:
            self.whole.setdefault(id(tensor), {})[place.model] = key

    def _tokens(self, module: str, key: str) -> None:
        named = self.settings.tokens
        rows = next((r for one, r in named.items() if one and module.endswith(one)), None)
        rows = named.get("") if rows is None else rows
        place = self._place(f"{module}.weight")
        if rows is None or place is None or place.computed:
            raise self._unmatched(key)
        tensor = self.anatomy.tensors.get(place.model)
        tied = [] if tensor is None else self.anatomy.names_of(tensor)
        twins = [one for model in tied for one in self.by_model.get(model, ())]
        for one in dict.fromkeys((*place.stored, *twins)):
            size = self.stored[one].shape
            self._check_shape(key, self.adapter[key].shape, (len(rows), size[-1]))
            if max(rows, default=0) >= size[0]:
                raise self._resized(key, max(rows) + 1, size[0])
            self._check_float(one)
            self.replaced.setdefault(one, []).append(partial(_make_rows, key, rows))

    def _check_tied(self) -> None:
        """Tensors that the config ties have to be replaced on both sides, by equal values."""
        for changed in self.whole.values():
            model = next(iter(changed))
            tied = self.anatomy.names_of(self.anatomy.tensors[model])
            if len(tied) > 1 and (set(tied) - set(changed) or len(set(changed.values())) > 1):
                raise self._is_tied(model, tied)

    def _check_depth(self) -> None:
        """An adapter of all layers of a shallower model fits a deeper one by name and shape."""
        if self.settings.some_layers:
            return
        there: dict[str, set[int]] = {}
        for name in self.anatomy.tensors:
            if where := self.anatomy.layer_of(name):
                there.setdefault(where[2], set()).add(where[1])
        for rest, changed in self.layers.items():
            left = there[rest] - changed
            if left and min(left) > max(changed):
                raise BaseError(
                    f"{self.name} changes {rest} in layers up to {max(changed)} alone, and the "
                    f"base has layers 0 to {self.anatomy.stack.depth - 1}: it was trained on a "
                    "model of fewer layers. Name that one as its base."
                )

    # ------------------------------------------------------------------ low-rank products

    def _low_rank(self, module: _Module) -> None:
        parts = dict(module.parts)
        embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
        a, b = (parts.pop(f"lora_{'embedding_' * embedding}{one}", None) for one in "AB")
        bias, magnitude = parts.pop("lora_B.bias", None), parts.pop("lora_magnitude_vector", None)
        if a is None or b is None or parts or (magnitude is None) == self.settings.dora:
            raise BaseError(
                f"{self.name} is not complete: of {module.path} it has only "
                f"{', '.join(sorted(module.parts))}. Save or download it again."
            )
        if len(self.adapter[a].shape) != 2 or len(self.adapter[b].shape) != 2:
            raise BaseError(
                f"{self.name} changes {module.path}, a convolution, which is not done here. "
                f"{_MERGE}"
            )
        if embedding:
            place, parameter = self._place(f"{module.path}.weight"), False
        else:
            place, parameter = self._parameter(module.path, a, b)
        if place is None:
            raise self._unmatched(a)
        pattern = place.model if parameter else module.path
        tensor = self.anatomy.tensors.get(place.model)
        self._check_rank(pattern, a, b, tensor)
        if tensor is not None and len(tied := self.anatomy.names_of(tensor)) > 1:
            raise self._is_tied(place.model, tied)
        if where := self.anatomy.layer_of(place.model):
            self.layers.setdefault(where[2], set()).add(where[1])
        scale = self.settings.scale_of(pattern)
        rounded = parameter or embedding or self.settings.rounded
        if tensor is not None and (place.computed or tensor.dim() == 3):
            if magnitude or bias:
                raise self._computed(a)
            self._taken_apart(place, tensor, (a, b), scale, rounded)
            return
        transposed = embedding or self._is_transposed(place.model)
        wide = self.adapter[b].shape[0], self.adapter[a].shape[1]
        if magnitude:
            self._check_shape(magnitude, self.adapter[magnitude].shape, wide[:1])
        make = partial(_make_low_rank, a, b, magnitude, scale, transposed, rounded)
        for one in place.stored:
            self._check_float(one)
            shape = wide[::-1] if transposed else wide
            self._check_shape(a, shape, self.stored[one].shape, place.model)
            self.added.setdefault(one, []).append(make)
        if bias:
            self._bias(module.path, bias, scale)

    def _bias(self, module: str, key: str, scale: float) -> None:
        place = self._place(f"{module}.bias")
        if place is None or place.computed:
            raise BaseError(
                f"{self.name} has a bias for {module}, which has none in the base, so it can't be "
                "merged (lora_bias)."
            )
        for one in place.stored:
            self._check_shape(key, self.adapter[key].shape, self.stored[one].shape)
            self._check_float(one)
            self.added.setdefault(one, []).append(partial(_make_added, key, scale))

    def _parameter(self, module: str, a: str, b: str) -> tuple[_Place | None, bool]:
        """Where A and B belong: the module's weight, or one of its parameters that was targeted by
        name (`target_parameters`). PEFT tells these apart by their order; shapes do so here."""
        named = [
            name
            for name in self.anatomy.tensors
            if name.rpartition(".")[0] == module and self.settings.is_parameter(name)
        ]
        if not named:
            return self._place(f"{module}.weight"), False
        fitting = [name for name in named if self._fits(name, a, b)]
        if len(fitting) > 1:
            raise BaseError(
                f"{self.name} doesn't say which of {', '.join(sorted(fitting))} it changes: they "
                f"have one shape. {_MERGE}"
            )
        return (self._place(fitting[0]) if fitting else None), True

    def _fits(self, parameter: str, a: str, b: str) -> bool:
        shape, rank = self.anatomy.tensors[parameter].shape, self.settings.rank_of(parameter)
        if len(shape) not in (2, 3):
            return False
        experts = shape[0] if len(shape) == 3 else 1
        out, width = shape[-2:] if self._is_swapped(parameter) else shape[:-3:-1]
        wanted = (rank * experts, width), (out, rank * experts)
        return wanted == (tuple(self.adapter[a].shape), tuple(self.adapter[b].shape))

    def _is_swapped(self, parameter: str) -> bool:
        """Whether a parameter is stored as (…, out, in)."""
        owner = self.anatomy.model.get_submodule(parameter.rpartition(".")[0])
        two = self.anatomy.tensors[parameter].dim() == 2
        return two or not getattr(owner, "is_transposed", False)

    def _taken_apart(
        self,
        place: _Place,
        tensor: torch.Tensor,
        keys: tuple[str, str],
        scale: float,
        rounded: bool,
    ) -> None:
        """Change the stored tensors that a parameter is made of, each by its part."""
        (a, b), model = keys, place.model
        if tensor.dim() == 3:
            swapped = self._is_swapped(model)
            make = partial(_experts, a, b, scale=scale, experts=len(tensor), swapped=swapped)
        else:
            transposed = self._is_transposed(model)
            wide = self.adapter[b].shape[0], self.adapter[a].shape[1]
            self._check_shape(a, wide[::-1] if transposed else wide, tuple(tensor.shape))
            make = partial(_product, a, b, scale=scale, transposed=transposed)
        parts = {model: torch.empty(tensor.shape, device="meta")}
        if place.computed:
            parts = self._reverted(parts, a)
        names = {one: _ending(one, parts) for one in place.stored}
        shapes = {name: tuple(part.shape) for name, part in parts.items()}
        found = {name: tuple(self.stored[one].shape) for one, name in names.items()}
        if found != shapes or len(names) != len(parts):
            raise self._computed(a)

        def apart(read: Read) -> Mapping[str, torch.Tensor]:
            whole = {model: make(read)}
            return self._reverted(whole, a) if place.computed else whole

        for one in place.stored:
            self._check_float(one)
            part = partial(self._recent.get, model, apart)
            self.added.setdefault(one, []).append(partial(_make_sum, part, names[one], rounded))

    def _reverted(self, parts: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
        """Tensors of the model as they are stored. Raises `BaseError`."""
        try:
            return revert_weight_conversion(self.anatomy.model, parts)
        except Exception as error:  # transformers' converters fail in many ways
            raise self._computed(key) from error

    # ------------------------------------------------------------------ names and shapes

    def _place(self, name: str) -> _Place | None:
        """Where the tensor called `name`, on disk or in the model, is stored; None if nowhere."""
        if name in self.stored:
            model = self.translate(name)
            if not self.targets(name):
                return _Place(model, tuple(self.by_model[model]))
            if model != name:  # an expert's own matrix, which is one of many in the model
                return _Place("", (name,))
        model = self._model_name(name)
        if not (there := self.by_model.get(model, [])) and model in self.anatomy.tensors:
            # Stored under the name of the tensor that it is tied to.
            tied = self.anatomy.names_of(self.anatomy.tensors[model])
            there = next((self.by_model[one] for one in tied if one in self.by_model), [])
        computed = any(map(self.targets, there))
        return _Place(model, tuple(there), computed) if there else None

    def _model_name(self, name: str) -> str:
        return name if name in self.anatomy.tensors else self.translate(name)

    def _is_transposed(self, model: str) -> bool:
        """Whether a weight is stored as (in, out), as GPT-2's are (`fan_in_fan_out`)."""
        if model not in self.anatomy.tensors:
            return False
        return isinstance(self.anatomy.model.get_submodule(model.rpartition(".")[0]), Conv1D)

    def _check_rank(self, pattern: str, a: str, b: str, tensor: torch.Tensor | None) -> None:
        rank = self.settings.rank_of(pattern)
        experts = len(tensor) if tensor is not None and tensor.dim() == 3 else 1
        one, other = self.adapter[a].shape[0], self.adapter[b].shape[1]
        if {one, other} != {rank * experts}:
            raise BaseError(
                f"{self.name} does not fit its adapter_config.json: {a} has rank {one}, and the "
                f"config says {rank * experts}. Save or download it again."
            )

    def _check_shape(
        self, key: str, shape: tuple[int, ...], wanted: tuple[int, ...], model: str = ""
    ) -> None:
        """Raise `BaseError` if a tensor has another shape than its place, which is called `model`
        in the model."""
        if tuple(shape) == tuple(wanted):
            return
        tables = (
            self.anatomy.model.get_input_embeddings(),
            self.anatomy.model.get_output_embeddings(),
        )
        own = self.anatomy.tensors.get(model)
        is_table = any(table is not None and own is table.weight for table in tables)
        if is_table and shape[1:] == tuple(wanted[1:]):
            raise self._resized(key, shape[0], wanted[0])
        raise BaseError(
            f"{self.name} does not fit this base: {key} is for a tensor of shape {list(shape)}, "
            f"and the base's is {list(wanted)}. Name the base that it was trained on."
        )

    def _check_float(self, one: str) -> None:
        if self.stored[one].dtype not in FLOATS:
            raise BaseError(
                f"{one} is stored as {self.stored[one].dtype}, which an adapter can't be merged "
                "into. Use the base in float32, bfloat16 or float16."
            )

    # ------------------------------------------------------------------ refusals

    def _unmatched(self, key: str) -> BaseError:
        return BaseError(
            f"{self.name} does not fit this base, which has no place for {key[:120]}. Name the "
            "base that it was trained on, or merge it there."
        )

    def _computed(self, key: str) -> BaseError:
        return BaseError(
            f"{self.name} can't be merged into the stored weights: transformers computes what "
            f"{key[:120]} changes from other tensors. {_MERGE}"
        )

    def _resized(self, key: str, rows: int, wanted: int) -> BaseError:
        return BaseError(
            f"{self.name} was trained with another vocabulary: {key[:120]} is for {rows:,} tokens, "
            f"and the base has {wanted:,}. {_MERGE}"
        )

    def _is_tied(self, model: str, tied: list[str]) -> BaseError:
        other = next(one for one in tied if one != model)
        return BaseError(
            f"{self.name} changes {model}, which the base shares with {other}: one weight can't "
            f"hold what it makes of both. Untie them in the base, train again, and name that one."
        )


def _ending(one: str, parts: Mapping[str, object]) -> str:
    """The name among `parts` that a stored name is, or ends with, or the other way round."""
    return next((p for p in parts if one == p or one.endswith(p) or p.endswith(one)), "")


def _make_replaced(key: str, read: Read) -> Change:
    return Replaced(read(key))


def _make_rows(key: str, rows: tuple[int, ...], read: Read) -> Change:
    return Rows(torch.tensor(rows), read(key))


def _make_added(key: str, scale: float, read: Read) -> Change:
    return Added(read(key), scale)


def _make_low_rank(
    a: str,
    b: str,
    magnitude: str | None,
    scale: float,
    transposed: bool,
    rounded: bool,
    read: Read,
) -> Change:
    vector = read(magnitude) if magnitude else None
    return LowRank(read(a), read(b), scale, transposed, rounded, vector)


def _make_sum(
    apart: Callable[[Read], Mapping[str, torch.Tensor]], name: str, rounded: bool, read: Read
) -> Change:
    return Sum(apart(read)[name], rounded)


def _experts(
    a: str, b: str, read: Read, *, scale: float, experts: int, swapped: bool
) -> torch.Tensor:
    return experts_delta(read(a), read(b), scale, experts, swapped)


def _product(a: str, b: str, read: Read, *, scale: float, transposed: bool) -> torch.Tensor:
    delta = read(b).float() @ read(a).float()
    return (delta.T if transposed else delta) * scale
