"""The input embedding of a model."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def input_embedding(model: PreTrainedModel) -> torch.Tensor:
    """The weight that token ids select rows of: (vocabulary, width). Ids belong on its device."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight
