"""What a patient has to compute: the base's own layers, run in the plan's order.

An independent road to the same numbers. It records what every layer of the unmodified base is given
in a pass of its own (mask, rotary embedding, per-layer inputs), runs the layer modules by hand in
the plan's order with these, and lets the base's own final norm and head finish. No config is
rewritten and no model is built, so an error there can't hide here.

What passes from layer to layer is found, not assumed: whatever a layer is given that the layer
before it returned (one tensor in most models, two residual streams in some), and a store that all
layers are handed and write to. An oracle that can't vouch for itself says so with `NoOracle`:

- the layers have to be called in their order, at most once each (those that the base passes over
  for text alone, such as cross-attention to images, the replay passes over too);
- what they are given otherwise must not follow from earlier layers' results;
- what comes behind the last layer must follow from that layer's results alone;
- the plan that changes nothing has to give the base's own logits, to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten_with_path, tree_map, tree_map_with_path
from transformers import Cache, PreTrainedModel

# How a model that loops over its depth calls it.
DEPTHS = ("n_layers", "num_layers", "num_hidden_layers")


class NoOracle(Exception):
    """What this model's layers compute can't be told apart from where they stand."""


def replay(
    model: PreTrainedModel,
    path: str,
    sources: Sequence[int],
    ids: torch.Tensor,
    **others: torch.Tensor,
):
    """Logits of the layers at `path` in the order of `sources`: (batch, length, vocab). `others`
    are further inputs, such as those of an image."""
    return Oracle(model, path, ids, **others).logits(sources)


def of(
    model: PreTrainedModel, paths: Sequence[str], ids: torch.Tensor | None, **others: torch.Tensor
) -> Oracle | Reordered:
    """The oracle for layers at `paths`: one list of layers, or several that run in step."""
    if len(paths) == 1:
        return Oracle(model, paths[0], ids, **others)
    return Reordered(model, paths, ids, **others)


@dataclass
class Call:
    """One layer's turn in a pass: what it was given and what it returned, with copies of the
    tensors as they were then. Values inside are named by their path."""

    index: int
    args: tuple
    kwargs: dict[str, Any]
    given: dict[tuple, Any]
    stores: dict[str, MutableMapping]
    returned: dict[tuple, tuple[Any, Any]] = field(default_factory=dict)


class Oracle:
    """The layers of `model` at `path`, and what each is given for `ids`. Raises `NoOracle`.

    Features of an image may enter between the first layers, and not only before them (DeepStack).
    Then the oracle begins behind the last place where they do, at layer `fixed`, and knows only
    plans that leave the layers before it where they are.
    """

    @torch.no_grad()
    def __init__(
        self, model: PreTrainedModel, path: str, ids: torch.Tensor, **others: torch.Tensor
    ) -> None:
        self.model, self.inputs = model, {"input_ids": ids, **others}
        self.layers: nn.ModuleList = model.get_submodule(path)
        self.expected, self.calls = self._pass()
        order = [call.index for call in self.calls]
        if order != sorted(set(order)):
            raise NoOracle(f"one pass calls its layers in the order {order}")
        self.last = order[-1]
        if any(isinstance(x, Cache) for call in self.calls for x in call.given.values()):
            raise NoOracle("its layers are handed a cache even without one")
        self.stores = self._find_stores()
        self.fixed = 0
        self.streams = self._find_streams()
        self._check_side_inputs()
        self._check_tail()
        if not torch.equal(self.logits(range(len(self.layers))), self.expected):
            raise NoOracle("its layers, run by hand in their own order, give other logits")

    @torch.no_grad()
    def logits(self, sources: Sequence[int]) -> torch.Tensor:
        """(batch, length, vocab), of the layers in the order of `sources`."""
        if list(sources[: self.fixed]) != list(range(self.fixed)):
            raise NoOracle(f"features of an image enter before layer {self.fixed}")
        sources = sources[self.fixed :]
        called = {call.index: call for call in self.calls}
        begin = next(call for call in self.calls if call.index >= self.fixed)
        flowing = {path: begin.given[path] for path in self.streams}
        stores = {name: copy.copy(begin.stores[name]) for name in self.stores}
        out = None
        for i in sources:
            if i not in called:
                continue
            args, kwargs = tree_map_with_path(
                lambda path, x: flowing.get(path, x),  # noqa: B023  called at once
                (called[i].args, called[i].kwargs),
            )
            out = self.layers[i](*args, **{**kwargs, **stores})
            leaves = _leaves(out)
            flowing = {path: leaves[slot] for path, slot in self.streams.items()}
        if out is None:
            raise NoOracle("the plan has none of the layers that act on text")
        with self._changed(lambda index, x: out if index == self.last else x):
            return self._run()

    # ------------------------------------------------------------------ what is seen in a pass

    def _pass(self) -> tuple[torch.Tensor, list[Call]]:
        """The base's logits, and every call of a layer on the way to them."""
        calls: list[Call] = []

        def before(index):
            def hook(_, args, kwargs):
                given = {p: _copy(x) for p, x in _leaves((args, kwargs)).items()}
                stores = {
                    k: copy.copy(v) for k, v in kwargs.items() if isinstance(v, MutableMapping)
                }
                calls.append(Call(index, args, dict(kwargs), given, stores))

            return hook

        def after(_, __, out):
            calls[-1].returned = {p: (x, _copy(x)) for p, x in _leaves(out).items()}

        with ExitStack() as stack:
            for i, layer in enumerate(self.layers):
                stack.enter_context(layer.register_forward_pre_hook(before(i), with_kwargs=True))
                stack.enter_context(layer.register_forward_hook(after))
            return self._run(), calls

    def _run(self) -> torch.Tensor:
        return self.model(**self.inputs, use_cache=False).logits

    def _find_stores(self) -> set[str]:
        """Dicts that all layers are handed and that some of them write to."""
        first, last = self.calls[0], self.calls[-1]
        return {
            name
            for name, before in first.stores.items()
            if all(call.kwargs.get(name) is first.kwargs[name] for call in self.calls)
            and before.keys() != last.kwargs[name].keys()
        }

    def _find_streams(self) -> dict[tuple, tuple]:
        """{where a layer is given it: where the layer before returned it}."""
        result = []
        for call, previous in zip(self.calls[1:], self.calls, strict=False):
            live = _leaves((call.args, call.kwargs))
            links = {}
            for path, value in live.items():
                for slot, (returned, was) in previous.returned.items():
                    if isinstance(value, torch.Tensor) and value is returned:
                        if not _equal(call.given[path], was):
                            raise NoOracle("results are changed on the way to the next layer")
                        links.setdefault(path, slot)
            result.append(links)
        if len(self.inputs) > 1 and result[-1]:
            while result and any(links != result[-1] for links in result):
                result = result[1:]
            self.fixed = self.calls[-len(result) - 1].index
        if not result[0] or any(links != result[0] for links in result):
            raise NoOracle("what a layer returns is not what the next one is given")
        if not result[0].keys() <= self.calls[0].given.keys():
            raise NoOracle("the first layer is called in another way than the next")
        return result[0]

    # ------------------------------------------------------------------ can it be trusted?

    def _check_side_inputs(self) -> None:
        """Whatever else layers are given stays the same when the first layer returns noise."""
        with self._changed(lambda index, x: _noise(x) if index == self.calls[0].index else x):
            _, calls = self._pass()
        for call, other in zip(self.calls, calls, strict=True):
            for path, value in call.given.items():
                if path in self.streams or self._in_store(path):
                    continue
                if not _equal(value, other.given.get(path)):
                    raise NoOracle(f"{path} of layer {call.index} follows from earlier layers")

    def _check_tail(self) -> None:
        """The logits stay the same when every layer but the last returns noise."""
        kept = self._last_results()
        with self._changed(lambda index, x: kept if index == self.last else _noise(x)):
            logits = self._run()
        if not torch.equal(logits, self.expected):
            raise NoOracle("the logits follow from more than what the last layer returns")

    def _last_results(self) -> Any:
        kept = []
        hook = self.layers[self.last].register_forward_hook(lambda _, __, out: kept.append(out))
        with hook:
            self._run()
        return kept[0]

    def _in_store(self, path: tuple) -> bool:
        return len(path) > 1 and getattr(path[1], "key", None) in self.stores

    @contextmanager
    def _changed(self, change: Callable[[int, Any], Any]):
        """While this lasts, layer i returns change(i, what it returned)."""
        with ExitStack() as stack:
            for i, layer in enumerate(self.layers):
                stack.enter_context(
                    layer.register_forward_hook(lambda _, __, out, i=i: change(i, out))
                )
            yield


class Reordered:
    """Lists that run in step inside the model's own loop (XLM has attentions, norms and MLPs in
    four), so that no module is a layer. The base runs them itself, put into the plan's order.

    It vouches for less: a loop that looked at the position of a layer would do so here too.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: PreTrainedModel,
        paths: Sequence[str],
        ids: torch.Tensor,
        **others: torch.Tensor,
    ) -> None:
        model = copy.deepcopy(model)  # its layers are put in another order below
        self.model, self.paths, self.inputs = model, paths, {"input_ids": ids, **others}
        self.owner = model.get_submodule(paths[0].rpartition(".")[0])
        self.lists = {path.rpartition(".")[2]: model.get_submodule(path) for path in paths}
        self.depth = len(self.lists[paths[0].rpartition(".")[2]])

    @torch.no_grad()
    def logits(self, sources: Sequence[int]) -> torch.Tensor:
        """(batch, length, vocab), of the layers in the order of `sources`."""
        counts = [
            (holder, name)
            for holder in (self.owner, self.model.config)  # the cache is as deep as the config says
            for name in DEPTHS
            if vars(holder).get(name) == self.depth
        ]
        try:
            for name, layers in self.lists.items():
                moved = [copy.copy(layers[i]) for i in sources]
                for p, module in enumerate(moved):
                    if hasattr(module, "layer_id"):
                        module.layer_id = p  # its slot in the cache that XLM always has
                setattr(self.owner, name, nn.ModuleList(moved))
            for holder, name in counts:
                setattr(holder, name, len(sources))
            return self.model(**self.inputs, use_cache=False).logits
        finally:
            for name, layers in self.lists.items():
                setattr(self.owner, name, layers)
            for holder, name in counts:
                setattr(holder, name, self.depth)


def _leaves(tree: Any) -> dict[tuple, Any]:
    return dict(tree_flatten_with_path(tree)[0])


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and (a is b or a == b)


def _noise(tree: Any) -> Any:
    generator = torch.Generator().manual_seed(1)

    def other(x):
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            return x + torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x

    return tree_map(other, tree)
