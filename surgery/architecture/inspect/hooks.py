"""Record or replace the hidden states between layers while a model runs.

Relies on how the loop around the layers calls them: hidden states are the first argument, and the
result or its first item. Use it only on a patient that nobody else runs; every change is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from surgery.architecture.inspect.layer_list import layer_list
from surgery.errors import Refused

from .anatomy import Anatomy


def layers_of(base: Anatomy, model: PreTrainedModel) -> nn.ModuleList | None:
    """The layers of a model of this base, in running order; None if their parts lie in several
    lists (XLM), so that no module is a layer."""
    if len(base.stack.paths) > 1:
        return None
    return layer_list(model, base.stack.paths[0])


def hidden_in(args: tuple, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The hidden states that a layer is called with."""
    value = args[0] if args else kwargs.get("hidden_states")
    return value if isinstance(value, torch.Tensor) else None


def hidden_out(output: Any) -> torch.Tensor | None:
    """The hidden states among what a layer returned."""
    value = output[0] if isinstance(output, (tuple, list)) and output else output
    return value if isinstance(value, torch.Tensor) else None


def by_token(states: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor | None:
    """Hidden states as (windows, length, width) for `ids`, (windows, length); None if they don't
    come by token. Where a model keeps several streams, before or behind these dimensions, a token
    has the width of all together."""
    if states is None:
        return None
    for at in range(states.dim() - 2):
        if states.shape[at : at + 2] == ids.shape:
            return states.movedim((at, at + 1), (0, 1)).flatten(2)
    return None


def replaced(output: Any, hidden: torch.Tensor) -> Any:
    """What a layer returned, with its hidden states replaced."""
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: hidden})
    if isinstance(output, (tuple, list)):
        return type(output)([hidden, *output[1:]])
    return hidden


def copied(output: Any) -> Any:
    """A copy of what a layer returned, unaffected by in-place changes."""
    return tree_map_only(torch.Tensor, torch.clone, output)


@contextmanager
def watched(
    layers: Sequence[nn.Module] | nn.ModuleList,
    called: Callable[[int, torch.Tensor | None, Any], None],
    first: int = 0,
) -> Iterator[None]:
    """Call `called(position, input hidden states, output)` after each layer from position `first`
    on, during the block. It may raise to end the forward pass."""
    hooks = []
    for p, layer in list(enumerate(layers))[first:]:

        def hook(_, args, kwargs, output, p=p):
            called(p, hidden_in(args, kwargs), output)

        hooks.append(layer.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


@contextmanager
def standing_in(
    layers: Sequence[nn.Module] | nn.ModuleList, outputs: Mapping[int, Any]
) -> Iterator[None]:
    """During the block, the layers at these positions return these values without computing; masks
    and positions still come from the model's own code."""

    def stand_in(output: Any) -> Callable:
        return lambda *args, **kwargs: copied(output)

    try:
        for p, output in outputs.items():
            layers[p].forward = stand_in(output)
        yield
    finally:
        for p in outputs:
            vars(layers[p]).pop("forward", None)


def states_refused() -> Refused:
    """The error for scores of hidden states in a model whose hidden states can't be observed."""
    return Refused(
        "This model's layers don't take hidden states and return them, so they can't be compared; "
        "perplexities can be measured (drop-one, repeat-one)."
    )
