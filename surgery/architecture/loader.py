"""Which of transformers' Auto classes loads a base: the one of the class that its config names.

A vision-language checkpoint holds towers that `AutoModelForCausalLM` leaves out, and a reward model
a head that it has no place for. Loading the class that `architectures` names loads all of it.
"""

from __future__ import annotations

from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

# Auto classes and {model type: class}; the first that fits is taken.
_WRITERS = {
    AutoModelForCausalLM: MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    AutoModelForMultimodalLM: MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
}
_OTHERS = {
    AutoModelForSequenceClassification: MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    AutoModelForTokenClassification: MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    AutoModel: MODEL_MAPPING_NAMES,
}


def auto_class(config: PreTrainedConfig) -> type:
    """The Auto class whose model for this config is the one that the config names; that for causal
    language models where it names none of these."""
    named = config.architectures or ()
    text = config.get_text_config(decoder=True)
    for auto, classes in (_WRITERS | _OTHERS).items():
        if auto is AutoModel and getattr(text, "tie_word_embeddings", False):
            break  # its embeddings are its head, so it can write
        if classes.get(config.model_type) in named:
            return auto
    return AutoModelForCausalLM


def writes_text(config: PreTrainedConfig) -> bool:
    """Whether `auto_class` gives a language model, unlike one that classifies or embeds."""
    return auto_class(config) in _WRITERS
