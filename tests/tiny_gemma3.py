"""A tiny random Gemma 3 with its processor, on disk.

An image has one token in the prompt, and others once the processor has read it.
"""

from __future__ import annotations

from pathlib import Path

import tiny
from transformers import Gemma3ImageProcessorPil, Gemma3Processor, PreTrainedTokenizerFast
from zoo import multimodal
from zoo.images import SIDE

_TOKENS = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}


def save(folder: Path) -> None:
    """Write it, as such models are published."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizer().backend_tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=_TOKENS,
    )
    made = multimodal.model("gemma3")
    features = made.config.mm_tokens_per_image
    made.config.image_token_id = tokenizer.image_token_id
    made.save_pretrained(folder)
    Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        image_seq_length=features,
    ).save_pretrained(folder)
