"""Put a prompt and an image into what a vision-language model is given."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoProcessor, ProcessorMixin

from surgery.errors import SurgeryError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_PIXELS = 50_000_000  # of an image file: decoding takes three bytes for each


def load_processor(folder: Path, name: str) -> tuple[ProcessorMixin | None, str]:
    """The processor of images and text in a folder, and an empty string; or None and the reason.
    `name` is what messages call the model."""
    files = [path for path in folder.glob("*processor_config.json") if path.is_file()]
    if not files:
        return None, f"{name} has no processor of images (preprocessor_config.json)."
    try:
        processor = AutoProcessor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # damaged files, packages that are missing
        message = one_line(error, 200) or type(error).__name__
        if isinstance(error, ImportError) and "torchvision" in message.lower():
            return None, (
                f"Images need the package torchvision with {name}: pip install torchvision. "
                "Text works without it."
            )
        message = message.replace(f"{folder}/", "").rstrip(".")  # names no path of this machine
        return None, (
            f"{name} takes no images here: its processor can't be used (“{message}”). Text works "
            "without it."
        )
    if getattr(processor, "image_processor", None) is None:
        return None, f"The processor of {name} takes no images."
    return processor, ""


def read_image(file: str | Path | bytes) -> Image:
    """An image file, or its bytes, as RGB, turned upright. Raises `SurgeryError` if it can't be
    read, or is larger than 50 million pixels."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise SurgeryError(
            "An image in the prompt needs the package pillow: pip install pillow."
        ) from error

    name = "The image" if isinstance(file, bytes) else Path(file).name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
            with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise SurgeryError(
                        f"{name} has {image.width:,} × {image.height:,} pixels, and at most "
                        f"{_MOST_PIXELS // 1_000_000} million are read: make it smaller."
                    )
                return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise SurgeryError(f"{name} is not an image: give a PNG, JPEG or WebP file.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SurgeryError(f"{name} can't be read as an image: {one_line(error, 200)}") from error


def image_inputs(
    processor: ProcessorMixin, prompt: str, image: Image, chat: bool
) -> Mapping[str, torch.Tensor]:
    """What the model is given for an image and a prompt: `input_ids` (1, tokens), and whatever its
    processor makes of the image.

    `chat` puts both into the chat template, image first. Otherwise the image's token stands before
    the prompt, unless the prompt has it. Raises `SurgeryError` if the processor can't do it.
    """
    given: Any = processor
    try:
        if chat:
            content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
            made = given.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        else:
            token = _image_token(processor)
            text = prompt if token in prompt else token + prompt
            made = given(text=[text], images=[image], return_tensors="pt")
    except Exception as error:  # whatever a template or an image processor runs into
        message = one_line(error, 200) or type(error).__name__
        raise SurgeryError(
            f"The processor can't put the image into the prompt: {message}"
        ) from error
    return {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}


def _image_token(processor: ProcessorMixin) -> str:
    """What stands for an image in a prompt; empty if the processor adds it on its own."""
    return str(getattr(processor, "image_token", None) or "")
