"""Record or replace the hidden states between layers, or skip the first layers, while a model runs.

Relies on how the loop around the layers calls them: hidden states are the first argument, and the
result or its first item. Use it only on a patient that nobody else runs; every change is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers import PreTrainedModel

from surgery.architecture.inspect.layer_list import layer_list
from surgery.errors import Refused

from .anatomy import Anatomy

_CHECKED = 8  # tokens that tell whether layers can be skipped
CHECK = 3 * _CHECKED


class _Enough(Exception):
    """Ends a pass once it has shown what it was for."""


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


def skippable(base: Anatomy, model: PreTrainedModel, ids: torch.Tensor) -> bool:
    """Can this model's first layers be left out of a pass by returning what they returned before?

    Not if a layer leaves something for a later one besides what it returns. Seen on meta, where
    every layer is skipped, and then in numbers: each layer alone is run with all before it skipped
    and has to return what it did. A pass over other tokens in between makes sure that nothing left
    on a module passes for it. Costs as much as three passes over the first few of `ids`, (1,
    length): CHECK tokens through each layer.
    """
    layers = layers_of(base, model)
    if layers is None or base.layer_inputs is None:
        return False
    ids = ids[:1, :_CHECKED]
    kept: dict[int, Any] = {}
    with torch.no_grad():
        with watched(layers, lambda p, _, output: kept.__setitem__(p, copied(output))):
            logits = model(input_ids=ids, use_cache=False).logits
        if not kept:
            return False
        model(input_ids=ids.flip(1), use_cache=False)
        with standing_in(layers, kept):
            if not torch.equal(model(input_ids=ids, use_cache=False).logits, logits):
                return False
        # From the last to the first, so that none finds what the one before has just left.
        return all(_same_alone(model, layers, kept, p, ids) for p in sorted(kept, reverse=True))


def _same_alone(
    model: PreTrainedModel,
    layers: Sequence[nn.Module] | nn.ModuleList,
    kept: Mapping[int, Any],
    position: int,
    ids: torch.Tensor,
) -> bool:
    outputs = []

    def called(p: int, _, output: Any) -> None:
        if p == position:
            outputs.append(output)
            raise _Enough

    before = {p: output for p, output in kept.items() if p < position}
    try:
        with standing_in(layers, before), watched(layers, called, position):
            model(input_ids=ids, use_cache=False)
    except _Enough:
        pass
    except Exception:  # something that an earlier layer should have left isn't there
        return False
    ours, theirs = tree_leaves(outputs), tree_leaves([kept[position]])
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else type(a) is type(b)
        for a, b in zip(ours, theirs, strict=True)
    )


def states_refused() -> Refused:
    """The error for scores of hidden states in a model whose hidden states can't be observed."""
    return Refused(
        "This model's layers don't take hidden states and return them, so they can't be compared; "
        "perplexities can be measured (drop-one, repeat-one)."
    )
