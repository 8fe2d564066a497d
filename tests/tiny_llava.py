"""A tiny random vision-language model with a tokenizer and a processor of images, on disk."""

from __future__ import annotations

from pathlib import Path

import tiny
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaProcessor
from zoo import multimodal
from zoo.images import SIDE

CHAT = (
    "{% for message in messages %}{% for part in message.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} A:{% endif %}"
)
FEATURES = (SIDE // 14) ** 2  # of an image


def save(folder: Path) -> None:
    """Write it, as such models are published."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens("<image>", special_tokens=True)
    made = multimodal.model("llava")
    made.config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    made.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    LlavaProcessor(
        CLIPImageProcessorPil(size=size, crop_size=size),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)


def picture(path: Path, seed: int = 0, width: int = 60, height: int = 40) -> Path:
    """Write an image of one colour that fades to the right."""
    shades = Image.linear_gradient("L").rotate(90 * (seed + 1)).resize((width, height))
    Image.merge("RGB", (shades, shades.point(lambda v: 255 - v), shades)).save(path)
    return path
