"""How surprised a model is by the text that another one generates."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
from transformers import PreTrainedModel

from surgery.architecture.inspect.layer_list import embedding_table
from surgery.generation.stream import Stream

from .passes import nll, run


def surprises(model: PreTrainedModel, stream: Stream) -> list[tuple[str, float]]:
    """The pieces of text that a stream has generated so far, each with −ln of the probability that
    `model` gives its tokens after the same prompt and text, in nats.

    One pass of `model` over prompt and text, without the cache. Probabilities are those of its
    whole distribution, whatever the stream's temperature and top-p. Both models have to use the
    same tokens. Empty for a prompt with an image, which its tokens don't hold. Raises
    `SurgeryError` if it can't be computed.
    """
    pieces, ids = stream.pieces, stream.ids
    if not pieces or stream.has_image:
        return []
    device = embedding_table(model).device
    tokens = torch.tensor([[*stream.prompt_ids, *ids]], device=device)
    scored = len(ids) + 1  # the first is only what the others follow
    losses = nll(run(model, tokens)[:, -scored:], tokens[:, -scored:])
    ends = accumulate((count for _, count in pieces), initial=0)
    return [
        (text, float(losses[start:end].sum()))
        for (text, _), (start, end) in zip(pieces, pairwise(ends), strict=True)
    ]
