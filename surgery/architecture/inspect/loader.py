"""Choose the Auto class of transformers that loads all of a base, by its config's architecture.

`AutoModelForCausalLM` would drop the towers of a vision-language model, or the head of a reward
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.auto_factory import _BaseAutoModelClass
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

_Classes = dict[type[_BaseAutoModelClass], Mapping[str, Any]]
# {Auto class: {model type: model class}}; the first match is used.
_WRITERS: _Classes = {
    AutoModelForCausalLM: MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    AutoModelForMultimodalLM: MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
}
_OTHERS: _Classes = {
    AutoModelForSequenceClassification: MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    AutoModelForTokenClassification: MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    AutoModel: MODEL_MAPPING_NAMES,
}


def auto_class(config: PreTrainedConfig) -> type[_BaseAutoModelClass]:
    """Return the Auto class that maps this config to a class in its `architectures`.

    If there is none, `AutoModelForCausalLM`; if the config names no class and only the multimodal
    mapping has the type, `AutoModelForMultimodalLM`.
    """
    named = config.architectures or ()
    text = config.get_text_config(decoder=True)
    for auto, classes in (_WRITERS | _OTHERS).items():
        if auto is AutoModel and getattr(text, "tie_word_embeddings", False):
            break  # the embeddings are also its language-modelling head
        if classes.get(config.model_type) in named:
            return auto
    kind = config.model_type
    towers = kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    if towers and not named and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForMultimodalLM
    return AutoModelForCausalLM


def writes_text(config: PreTrainedConfig) -> bool:
    """Is it a language model, rather than a classifier or an embedding model?"""
    return auto_class(config) in _WRITERS


def is_multimodal(model: PreTrainedModel) -> bool:
    """Is it a language model that takes more than text? Some classes (Gemma 3's) are in the
    causal-LM mapping, too."""
    kind = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.get(model.config.model_type)
    return kind == type(model).__name__
