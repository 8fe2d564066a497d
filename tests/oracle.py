"""What a patient has to compute: the base's own layers, run in the plan's order.

An independent road to the same numbers. It records what every layer of the unmodified base is given
in a pass of its own (mask, rotary embedding, positions), runs the layers by hand in the plan's
order with these, and lets the base's own final norm and head finish. No config is rewritten and no
model is built, so an error there can't hide here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel


@torch.no_grad()
def replay(model: PreTrainedModel, path: str, sources: Sequence[int], ids: torch.Tensor):
    """Logits of the layers at `path` in the order of `sources`: (batch, length, vocab)."""
    layers: nn.ModuleList = model.get_submodule(path)
    given: dict[int, tuple[tuple, dict]] = {}

    def record(index):
        def hook(_, args, kwargs):
            given[index] = (args, kwargs)

        return hook

    hooks = [
        layer.register_forward_pre_hook(record(i), with_kwargs=True)
        for i, layer in enumerate(layers)
    ]
    model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()

    hidden = _input_of(given[0])
    for i in sources:
        args, kwargs = given[i]
        if args:
            out = layers[i](hidden, *args[1:], **kwargs)
        else:
            out = layers[i](**{**kwargs, "hidden_states": hidden})
        hidden = out[0] if isinstance(out, tuple) else out

    def replace(_, __, out):
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    hook = layers[-1].register_forward_hook(replace)
    try:
        return model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()


def _input_of(given: tuple[tuple, dict]) -> torch.Tensor:
    args, kwargs = given
    return args[0] if args else kwargs["hidden_states"]
