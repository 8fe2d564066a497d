"""Parts of a model that torch's types don't know: the list of its layers, its embeddings."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel


def layer_list(model: nn.Module, path: str) -> nn.ModuleList:
    """The list at `path`, one of `Anatomy.stack.paths`."""
    return cast(nn.ModuleList, model.get_submodule(path))


def embedding_table(model: PreTrainedModel) -> torch.Tensor:
    """The input embeddings, (vocabulary, width). Token ids belong on its device."""
    return cast(torch.Tensor, model.get_input_embeddings().weight)
