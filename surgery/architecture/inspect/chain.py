"""Run a model's layers one by one, as the model's own loop would call them.

Most models pass hidden states from layer to layer and nothing else. Then each layer is a
function of its hidden states, and the arguments beside them (masks, positions, rotary embeddings)
follow from the tokens alone: a pass in which no layer computes anything shows them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedModel

from .anatomy import Anatomy
from .hooks import copied, hidden_in, hidden_out, layers_of, replaced, watched
from .layer_copies import LayerCopies

PROBE = 8  # tokens that show whether layers can be run one by one
PASSES_SHOWING = 3  # over all layers, that showing it takes
PROBED = PASSES_SHOWING * PROBE  # tokens through each layer that showing it takes

# What the layers of a whole base returned for a few tokens, by the base's model without weights: it
# shows the form in which layers return hidden states.
_shown: WeakKeyDictionary[PreTrainedModel, Sequence[Any]] = WeakKeyDictionary()


def is_shown(base: Anatomy) -> bool:
    """Whether it was shown before that the layers of this base can be run one by one."""
    return base.model in _shown


@dataclass(frozen=True)
class Calls:
    """How the loop calls every layer for some tokens: arguments beside the hidden states."""

    first: torch.Tensor  # hidden states given to the first layer
    arguments: tuple[tuple[tuple, Mapping[str, Any]], ...]


class Chain:
    """The layers of one model of a base, which nobody else may use meanwhile."""

    def __init__(
        self, model: PreTrainedModel, layers: nn.ModuleList, outputs: Sequence[Any]
    ) -> None:
        self._model, self.layers, self._outputs = model, layers, outputs
        self._copies: LayerCopies | None = None
        self._outside: dict[str, torch.Tensor] = {}  # the layers: copies on the accelerator

    @classmethod
    def of(
        cls, base: Anatomy, model: PreTrainedModel, ids: torch.Tensor, sources: Sequence[int]
    ) -> Chain | None:
        """The chain of a model with the base's layers `sources`, or None where they can't be run
        one by one.

        Shown on the first few tokens of `ids`, (windows, length): each layer is given what the
        layer before returned, and run alone returns exactly what it returns within the model. What
        was shown for the whole base holds for its patients.
        """
        layers = layers_of(base, model)
        if layers is None or base.layer_inputs is None:
            return None
        if (shown := _shown.get(base.model)) is not None:
            return cls(model, layers, [shown[source] for source in sources])
        ids = ids[:1, :PROBE]
        seen: dict[int, tuple[torch.Tensor | None, Any]] = {}

        def called(p: int, given: torch.Tensor | None, output: Any) -> None:
            seen[p] = copied(given), copied(output)

        with torch.no_grad(), watched(layers, called):
            logits = model(input_ids=ids, use_cache=False).logits
        if len(seen) != len(layers):  # layers that text alone doesn't run
            return None
        chain = cls(model, layers, [seen[p][1] for p in range(len(layers))])
        try:
            chained = chain._is_chained(seen, ids, logits)
        except Exception:  # whatever a model's code runs into when its layers don't compute
            return None
        if chained and list(sources) == list(range(base.stack.depth)):
            _shown[base.model] = chain._outputs
        return chain if chained else None

    @torch.no_grad()
    def _is_chained(
        self, seen: Mapping[int, tuple], ids: torch.Tensor, logits: torch.Tensor
    ) -> bool:
        # Over other tokens, so that nothing that was left on a module passes for the layer's own.
        self._model(input_ids=ids.flip(1), use_cache=False)
        calls = self.calls(ids)
        # From the last to the first, so that none finds what the one before has just left.
        for p, layer in reversed(list(enumerate(self.layers))):
            given, output = seen[p]
            before = _states(seen[p - 1][1]) if p else calls.first
            if given is None or not torch.equal(before.to(given.device), given):
                return False
            if not torch.equal(self.run(calls, p, layer, given), _states(output)):
                return False
        return torch.equal(self.logits(ids, _states(seen[len(self.layers) - 1][1])), logits)

    def run_on(self, device: torch.device, base: Anatomy) -> None:
        """Run on `device` from now on, with a copy of what lies outside the layers and of two
        layers at a time."""
        tensors = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        self._outside = {
            name: tensor.detach().to(device, copy=True)
            for name, tensor in tensors.items()
            if base.layer_of(name) is None
        }
        self._copies = LayerCopies(device)

    @torch.no_grad()
    def calls(self, ids: torch.Tensor) -> Calls:
        """How layers are called for these tokens. No layer computes anything."""
        first: list[torch.Tensor] = []
        arguments: list[tuple[tuple, Mapping[str, Any]]] = []

        def passed_on(p: int, args: tuple, kwargs: dict) -> torch.Tensor:
            hidden = _given(args, kwargs)
            if not first:
                first.append(hidden.clone())
            rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            arguments.append((args[1:], rest))
            return hidden

        with self._instead(passed_on):
            self._call(ids)
        return Calls(first[0], tuple(arguments))

    @torch.no_grad()
    def run(
        self, calls: Calls, position: int, layer: nn.Module, hidden: torch.Tensor
    ) -> torch.Tensor:
        """What `layer` returns for hidden states, called as the loop calls that at `position`."""
        args, kwargs = calls.arguments[position]
        if self._copies is None:
            return _states(layer(hidden.clone(), *args, **kwargs))
        weights = self._copies.of(layer, self.layers[(position + 1) % len(self.layers)])
        return _states(functional_call(layer, weights, (hidden.clone(), *args), dict(kwargs)))

    @torch.no_grad()
    def logits(
        self, ids: torch.Tensor, hidden: torch.Tensor, last: int | None = None
    ) -> torch.Tensor:
        """The model's logits if its last layer returned `hidden`: (windows, length, vocabulary).
        Only those of the `last` tokens are needed, where the model can leave out the others."""
        end = len(self.layers) - 1
        leaves_out = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        options = {"logits_to_keep": last} if last and leaves_out else {}

        def passed_on(p: int, args: tuple, kwargs: dict) -> torch.Tensor:
            return hidden.clone() if p == end else _given(args, kwargs)

        with self._instead(passed_on):
            return self._call(ids, **options)

    def _call(self, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        """The logits of the whole model."""
        options = {"input_ids": ids, "use_cache": False, **options}
        if self._copies is None:
            return self._model(**options).logits
        options["input_ids"] = ids.to(self._copies.device)
        return functional_call(self._model, self._outside, (), options).logits

    @contextmanager
    def _instead(self, hidden_of: Callable[[int, tuple, dict], torch.Tensor]) -> Iterator[None]:
        """While this lasts, layers return what `hidden_of` says in the form that is theirs."""

        def stand_in(p: int) -> Callable:
            return lambda *args, **kwargs: replaced(self._outputs[p], hidden_of(p, args, kwargs))

        try:
            for p, layer in enumerate(self.layers):
                layer.forward = stand_in(p)
            yield
        finally:
            for layer in self.layers:
                vars(layer).pop("forward", None)


def _given(args: tuple, kwargs: Mapping[str, Any]) -> torch.Tensor:
    hidden = hidden_in(args, kwargs)
    assert hidden is not None, "a layer is called without hidden states"
    return hidden


def _states(output: Any) -> torch.Tensor:
    hidden = hidden_out(output)
    assert hidden is not None, "a layer returned no hidden states"
    return hidden
