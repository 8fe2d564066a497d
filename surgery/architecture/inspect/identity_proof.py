"""Prove which layers become the identity once their output projections are zero.

A layer initialised as the identity (LLaMA-Pro, arXiv 2401.02415) has its output projections zeroed.
Whether it then is the identity depends on what else it does: a norm after the residual sum, a
factor on it or an overlooked bias would change every hidden state. So the model runs once on the
meta device, where tensors have no values, and what is *known* of each tensor is followed instead:
that it is all zeros, or that it is the layer's input. An operation that isn't understood yields a
tensor of which nothing is known. So a layer whose output is known to be its input is the identity
for every input and for all other weights. Reads no weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from surgery.architecture.inspect.layer_list import layer_list
from surgery.initialisers import Block
from surgery.progress import alive

# The last matrix of attention and of the MLP, or of each expert, as models call it. Names only
# propose; whether they were all of them is for the proof to say.
OUTPUT_PROJECTIONS = (
    "o_proj",
    "out_proj",
    "down_proj",
    "c_proj",
    "w2",
    "fc2",
    "fc_out",
    "wo",
    "dense_4h_to_h",
    "dense",
    "output_linear",
    "out_lin",
    "lin2",
    "o_b_proj",
)
_OUTPUT = re.compile(rf"(^|\.)({'|'.join(OUTPUT_PROJECTIONS)})((\.|_)(weight|bias))?$")
# Where it lies in a layer, or what it is called there, tells whose output projection it is.
_OF_ATTENTION = re.compile(r"(^|[._])\w*att(n|ention)|(^|\.)(o_proj|wo|o_b_proj)[._]")
_OF_MLP = re.compile(
    r"(^|[._])(mlp|ffn?|feed_forward|moe|experts?|shared_experts?)[._\d]"
    r"|(^|\.)(down_proj|w2|fc2|fc_out|lin2|dense_4h_to_h)([._]|$)"
)
_ZERO, _INPUT = "zeros", "the layer's input"

_aten = torch.ops.aten
_MAKES_ZEROS = {_aten.zeros, _aten.zeros_like, _aten.new_zeros, _aten.zero}
# The same values in another form: of zeros, and of the whole input too.
_FORM = {
    _aten._reshape_alias,
    _aten._to_copy,
    _aten._unsafe_view,
    _aten.alias,
    _aten.clone,
    _aten.detach,
    _aten.permute,
    _aten.squeeze,
    _aten.t,
    _aten.transpose,
    _aten.unsqueeze,
    _aten.view,
}
# f(0) = 0: parts and sums of zeros, and activations that pass through the origin.
_KEEPS_ZEROS = _FORM | {
    _aten.abs,
    _aten.expand,
    _aten.gather,
    _aten.gelu,
    _aten.index,
    _aten.index_select,
    _aten.mean,
    _aten.neg,
    _aten.relu,
    _aten.repeat,
    _aten.select,
    _aten.silu,
    _aten.slice,
    _aten.split,
    _aten.split_with_sizes,
    _aten.sum,
    _aten.tanh,
    _aten.unbind,
}
_PRODUCTS = {_aten.bmm, _aten.mm, _aten.mul}
_BIASED_PRODUCTS = {_aten.addmm, _aten.baddbmm}


def is_output_projection(name: str) -> bool:
    """Whether a layer's tensor of this name (without the layer's prefix) is an output projection.

    Small matrices inside a norm (A.X K2 has them) are not.
    """
    return bool(_OUTPUT.search(name)) and "norm." not in name


def output_block(name: str) -> Block | None:
    """The block of a layer whose output projection has this name; None if it is of none."""
    if not is_output_projection(name):
        return None
    if _OF_ATTENTION.search(name):
        return Block.ATTENTION
    return Block.MLP if _OF_MLP.search(name) else Block.OTHER


def output_projections(names: Iterable[str]) -> tuple[str, ...]:
    """The names of output projections that occur among these tensors."""
    return tuple(dict.fromkeys(m[2] for name in names if (m := _OUTPUT.search(name))))


def identity_layers(model: PreTrainedModel, paths: Iterable[str]) -> frozenset[int]:
    """The layers that are proven to be the identity once their output projections are zero.

    `model` is on the meta device, and can't be used for anything else afterwards; `paths` are those
    of its stack. A layer is left out if the model can't be followed.
    """
    (path, *others) = paths
    if others:  # layers whose parts lie in several lists have no input and output of their own
        return frozenset()
    layers = layer_list(model, path)
    if _has_experts(model):
        model.set_experts_implementation("batched_mm")  # the one that looks at no values
    trace = _Trace()
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if is_output_projection(name):
                trace.learn(parameter, _ZERO)
    proven = set()
    handed_on: list[torch.Tensor] = []  # what layers return besides their hidden states
    linked = False

    def enter(index: int):
        def hook(_, args: tuple, kwargs: dict) -> None:
            nonlocal linked
            given = tree_leaves((args, kwargs))
            linked |= any(value is other for other in handed_on for value in given)
            trace.begin_layer(args[0] if args else kwargs.get("hidden_states"))

        return hook

    def leave(index: int):
        def hook(_, args: tuple, output: Any) -> None:
            hidden, *others = output if isinstance(output, tuple) else (output,)
            handed_on.extend(x for x in tree_leaves(others) if isinstance(x, torch.Tensor))
            if trace.known(hidden) == _INPUT:
                proven.add(index)

        return hook

    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(enter(index), with_kwargs=True)
        layer.register_forward_hook(leave(index))
    try:
        with torch.no_grad(), trace:
            model(input_ids=torch.zeros(1, 4, dtype=torch.long, device="meta"), use_cache=True)
    except Exception:  # what can't run without values can't be followed to its end
        pass
    # A layer that hands something else on to later ones (the indices that its attention selected)
    # has an effect even if it adds nothing.
    return frozenset() if linked else frozenset(proven)


def _has_experts(model: Any) -> bool:
    return any("experts" in name for name, _ in model.named_modules())


class _Trace(TorchDispatchMode):
    """Follows what is known of every tensor while a model runs on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, str] = {}
        self._alive: list[torch.Tensor] = []  # an id means nothing once its tensor is gone

    def learn(self, tensor: torch.Tensor, what: str | None) -> None:
        """Record what is known of a tensor; None forgets it."""
        self._alive.append(tensor)
        if what is None:
            self._known.pop(id(tensor), None)
        else:
            self._known[id(tensor)] = what

    def known(self, value: Any) -> str | None:
        """What is known of a tensor or a number."""
        if isinstance(value, torch.Tensor):
            return self._known.get(id(value))
        return _ZERO if isinstance(value, (int, float)) and value == 0 else None

    def begin_layer(self, hidden: Any) -> None:
        """Follow the input of the next layer."""
        self._known = {key: what for key, what in self._known.items() if what != _INPUT}
        if isinstance(hidden, torch.Tensor):
            self.learn(hidden, _INPUT)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        alive()
        kwargs = kwargs or {}
        if func.overloadpacket is _aten._local_scalar_dense:
            return 1  # models ask whether a mask is all ones, and the like: it is
        output = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        operation = getattr(_aten, name.rstrip("_"), func.overloadpacket)
        what = self._result(operation, args, kwargs, output)
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self.learn(tensor, what)
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, torch.Tensor):
                self._forget_views_of(value)
                self.learn(value, what)
        return output

    def _forget_views_of(self, value: torch.Tensor) -> None:
        """Forget what was known of tensors that share memory with one that is written to."""
        storage = value.untyped_storage()._cdata
        for tensor in self._alive:
            if id(tensor) in self._known and tensor.untyped_storage()._cdata == storage:
                self._known.pop(id(tensor))

    def _result(self, operation: Any, args: tuple, kwargs: dict, output: Any) -> str | None:
        known = self.known
        if operation in _MAKES_ZEROS:
            return _ZERO
        if operation in (_aten.add, _aten.sub):
            return self._sum(operation, args, kwargs, output)
        if operation in _BIASED_PRODUCTS:
            bias, *factors = (known(value) for value in args[:3])
            return _ZERO if bias == _ZERO and _ZERO in factors else None
        if operation in _PRODUCTS:
            if _ZERO in (known(args[0]), known(args[1])):
                return _ZERO  # finite values are taken for granted, as everywhere
            one = not isinstance(args[1], torch.Tensor) and args[1] == 1
            return _INPUT if operation is _aten.mul and one and known(args[0]) == _INPUT else None
        if operation is _aten.div:
            one = not isinstance(args[1], torch.Tensor) and args[1] == 1
            return known(args[0]) if one or known(args[0]) == _ZERO else None
        if operation in (_aten.cat, _aten.stack):
            return _ZERO if all(known(value) == _ZERO for value in args[0]) else None
        if operation is _aten.index_add:
            return _ZERO if known(args[0]) == known(args[3]) == _ZERO else None
        if operation is _aten.masked_fill:
            return _ZERO if known(args[0]) == known(args[2]) == _ZERO else None
        if operation in _KEEPS_ZEROS:
            what = known(args[0])
            return what if what == _ZERO or operation in _FORM else None
        return None

    def _sum(self, operation: Any, args: tuple, kwargs: dict, output: Any) -> str | None:
        left, right = self.known(args[0]), self.known(args[1])
        if left == right == _ZERO:
            return _ZERO
        if (left, right) == (_INPUT, _ZERO) and output.shape == args[0].shape:
            return _INPUT
        plain = operation is _aten.add and kwargs.get("alpha", 1) == 1
        if (left, right) == (_ZERO, _INPUT) and plain and output.shape == args[1].shape:
            return _INPUT
        return None
