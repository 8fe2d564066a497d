"""Refuse models that are not decoders, and say what they are, from transformers' task mappings."""

from __future__ import annotations

from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto import modeling_auto as tasks

from surgery.errors import Refused

from .loader import auto_class

_ONLY = (
    "Only decoder-only language models can be operated on: those that transformers loads with "
    "AutoModelForCausalLM, and those in multimodal models."
)
# A model type is described by the first task that lists it.
_KINDS = (
    ("IMAGE_TEXT_TO_TEXT", "a vision-language model"),
    ("MULTIMODAL_LM", "a multimodal model"),
    ("SPEECH_SEQ_2_SEQ", "a speech recognition model"),
    ("SEQ_TO_SEQ_CAUSAL_LM", "an encoder-decoder model"),
    ("CTC", "a speech model"),
    ("TEXT_TO_WAVEFORM", "a speech model"),
    ("TEXT_TO_SPECTROGRAM", "a speech model"),
    ("AUDIO_CLASSIFICATION", "an audio model"),
    ("AUDIO_TOKENIZATION", "an audio model"),
    ("TIME_SERIES_PREDICTION", "a time series model"),
    ("ZERO_SHOT_IMAGE_CLASSIFICATION", "an image-text model"),
    ("MASKED_LM", "an encoder (a masked language model)"),
    ("IMAGE_CLASSIFICATION", "a vision model"),
    ("OBJECT_DETECTION", "a vision model"),
    ("IMAGE_SEGMENTATION", "a vision model"),
    ("SEMANTIC_SEGMENTATION", "a vision model"),
    ("MASK_GENERATION", "a vision model"),
)


def check_config(config: PreTrainedConfig) -> None:
    """Raise `Refused` unless it is the config of a decoder-only model."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise Refused(f"{kind} is an encoder-decoder model. {_ONLY}")
    text = config.get_text_config(decoder=True)
    if getattr(text, "is_encoder_decoder", False):
        raise Refused(
            f"The language model of this {kind} model, {text.model_type}, is an encoder-decoder "
            f"model. {_ONLY}"
        )
    if type(config) in AutoModelForCausalLM._model_mapping:
        return
    if auto_class(config) is AutoModelForMultimodalLM:
        return  # its text model is what is operated on
    what = next((w for task, w in _KINDS if kind in _types(task)), "not a language model")
    raise Refused(f"{kind} is {what}. {_ONLY}")


def check_causal(model: PreTrainedModel) -> None:
    """Raise `Refused` for an encoder that transformers would run as if it were a decoder."""
    kind = model.config.model_type
    if kind in _types("MASKED_LM") and getattr(model.config, "is_decoder", True) is False:
        raise Refused(
            f"This {kind} model is an encoder (is_decoder is false in its config): each token "
            f"attends to the tokens after it, so it can't continue a text. {_ONLY}"
        )


def _types(task: str):
    return getattr(tasks, f"MODEL_FOR_{task}_MAPPING_NAMES", {})
