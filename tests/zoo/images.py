"""An image, or a sound, for a tiny random model: what its processor would hand over.

No processor is involved. The pixels are random, in the first layout that the model takes. The
prompt holds as many image tokens as the model's own `get_image_features` returns features. What
single types need besides is in `special_multimodal`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .special_multimodal import SIDE, made_by_hand

Inputs = dict[str, torch.Tensor]
BEFORE, AFTER = 3, 8  # tokens of text around an image
_TOKENS = (
    "image_token_id",
    "image_token_index",
    "img_token_id",
    "media_token_id",
    "image_patch_id",
    "audio_token_id",
    "audio_token_index",
)


def image_inputs(model: PreTrainedModel) -> Inputs | None:
    """`input_ids` with an image's tokens and whatever carries the image; None if no layout that is
    known here is taken, or if the image changes nothing."""
    token = _token(model.config)
    for candidate in _candidates(model):
        if (inputs := _with_prompt(model, token, candidate)) is not None and _matters(
            model, inputs
        ):
            return inputs
    return None


def _candidates(model: PreTrainedModel) -> Iterator[Inputs]:
    """Pixels in the layouts that there are, those of the model's own type first."""
    yield from made_by_hand(model)
    takes = inspect.signature(model.forward).parameters
    vision = getattr(model.config, "vision_config", None) or model.config
    size = getattr(vision, "image_size", None)
    side = max(size) if isinstance(size, (list, tuple)) else size or SIDE
    if "pixel_values" in takes:
        if "image_grid_thw" in takes:
            patch, merged = _number(vision, "patch_size", 14), 4
            times = _number(vision, "temporal_patch_size", 1)
            for channels in (3 * times * patch**2, 3 * patch**2):
                yield dict(
                    pixel_values=_random(merged**2, channels),
                    image_grid_thw=torch.tensor([[1, merged, merged]]),
                )
            yield dict(
                pixel_values=_random(merged**2, 3, patch, patch),
                image_grid_thw=torch.tensor([[1, merged, merged]]),
            )
        sizes = {"image_sizes": torch.tensor([[side, side]])} if "image_sizes" in takes else {}
        for shape in ((1, 3, side, side), (1, 1, 3, side, side), (1, 3, 3, side, side)):
            if sizes:
                yield dict(pixel_values=_random(*shape), **sizes)
            yield dict(pixel_values=_random(*shape))


@torch.no_grad()
def _with_prompt(model: PreTrainedModel, token: int | None, pixels: Inputs) -> Inputs | None:
    """The pixels with a prompt that has room for their features; None if the model rejects them."""
    count = _features(model, pixels)
    for _ in range(2):
        inputs = pixels | {"input_ids": _prompt(token, count or 0)}
        takes = inspect.signature(model.forward).parameters
        kinds = (inputs["input_ids"] == token).int() if token is not None else None
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in takes and kinds is not None:
                inputs[name] = kinds
        try:
            model(**inputs, use_cache=False)
            return inputs
        except Exception as error:
            # “Image features and image tokens do not match, tokens: 4, features: 16”
            found = re.search(r"features:?\s*(?:torch.Size\(\[)?(\d+)", str(error))
            if token is None or found is None or int(found[1]) in (count, 0):
                return None
            count = int(found[1])
    return None


def _features(model: PreTrainedModel, pixels: Inputs) -> int | None:
    """How many features the model makes of these pixels, as its own `get_image_features` says."""
    for owner in (model, getattr(model, "model", None)):
        for name in ("get_image_features", "get_audio_features"):
            method = getattr(owner, name, None)
            if method is None:
                continue
            takes = inspect.signature(method).parameters
            try:
                out = method(**{k: v for k, v in pixels.items() if k in takes})
            except Exception:
                continue
            out = getattr(out, "pooler_output", out)
            width = model.config.get_text_config(decoder=True).hidden_size
            parts = out if isinstance(out, (list, tuple)) else [out]
            if all(isinstance(x, torch.Tensor) for x in parts):
                return sum(x.numel() for x in parts) // width
    return None


@torch.no_grad()
def _matters(model: PreTrainedModel, inputs: Inputs) -> bool:
    """Does the last token know of the image?"""
    other = {
        name: x.flip(0).flip(-1) * 0.5 if x.is_floating_point() else x for name, x in inputs.items()
    }
    one, two = (model(**x, use_cache=False).logits[:, -1] for x in (inputs, other))
    return bool(torch.isfinite(one).all()) and (one - two).abs().max().item() > 1e-4


def _prompt(token: int | None, count: int) -> torch.Tensor:
    """Text, `count` image tokens, and more text: (1, length)."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(3, 99, (1, BEFORE + AFTER), generator=generator)
    if token is None or not count:
        return text
    text[text == token] = 2
    return torch.cat([text[:, :BEFORE], torch.full((1, count), token), text[:, BEFORE:]], dim=1)


def _token(config: PreTrainedConfig) -> int | None:
    for part in (config, config.get_text_config(decoder=True)):
        for name in _TOKENS:
            if isinstance(value := getattr(part, name, None), int):
                return value
    return None


def _number(config: Any, name: str, default: int) -> int:
    value = getattr(config, name, default)
    return value if isinstance(value, int) else default


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
