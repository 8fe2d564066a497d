"""What single multimodal types need: config fields, and the layout of their images and sounds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from .special import SPECIAL

Inputs = dict[str, torch.Tensor]
SIDE = 28  # of an image, in pixels
_PATCH = 14

_MROPE = dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3])
_TEXT_MROPE = dict(text_config=dict(rope_parameters=_MROPE))
_GLM_MROPE = dict(
    text_config=dict(
        rope_parameters=dict(_MROPE, partial_rotary_factor=1.0, mrope_section=[2, 3, 3])
    )
)
_SAME_HEADS = dict(text_config=dict(num_key_value_heads=4))
_WINDOWED = dict(window_size=56, fullatt_block_indexes=[1])
_SMALL_VQ = dict(
    num_embeddings=16,
    embed_dim=8,
    latent_channels=8,
    base_channels=32,
    num_res_blocks=1,
    channel_multiplier=[1, 1],
    hidden_size=16,
    projection_dim=16,
)
_DEEPSTACK = dict(vision_config=dict(deepstack_visual_indexes=[0, 1]))

# As in `special`; a type that is named here is described here as a whole.
FIELDS: dict[str, dict] = {
    "aria": dict(projector_patch_to_query_dict={4: 4}),
    "blip-2": dict(image_token_index=100),
    "instructblip": dict(image_token_index=100),
    "instructblipvideo": dict(image_token_index=100),
    "chameleon": dict(vocabulary_map={"<image>": 100}),
    "cohere_compass": dict(
        text_config=dict(
            layer_types=SPECIAL["gemma2"]["layer_types"],
            rope_parameters={
                kind: dict(rope_type="default", rope_theta=1e4)
                for kind in ("full_attention", "sliding_attention")
            },
        ),
        **_DEEPSTACK,
    ),
    "cosmos3_edge": _TEXT_MROPE,
    "cosmos3_omni": _DEEPSTACK,
    "deepseek_ocr2": dict(text_config=dict(mlp_layer_types=["dense"] + ["sparse"] * 5)),
    "emu3": dict(vocabulary_map={"<image>": 100}),
    "ernie4_5_vl_moe": dict(
        text_config=dict(
            moe_intermediate_size=[32, 32],
            rope_parameters=dict(_MROPE, mrope_section=[2, 2, 4]),
        )
    ),
    "exaone4_5": dict(vision_config=_WINDOWED),
    "gemma3": dict(
        text_config=dict(layer_types=SPECIAL["gemma2"]["layer_types"]), mm_tokens_per_image=4
    ),
    "shieldgemma2": dict(
        text_config=dict(layer_types=SPECIAL["gemma2"]["layer_types"]), mm_tokens_per_image=4
    ),
    "glm46v": _GLM_MROPE,
    "glm4v": _GLM_MROPE,
    "glm4v_moe": _GLM_MROPE,
    "glm5_next": dict(text_config=dict(num_key_value_heads=4, index_kpool=2, qk_rope_head_dim=0)),
    "granite_speech": dict(encoder_config=dict(hidden_dim=64)),
    "granite_speech_plus": dict(encoder_config=dict(hidden_dim=64)),
    "cohere2_vision": dict(alignment_intermediate_size=64),
    "inkling2": dict(text_config=SPECIAL["inkling2_text"], vision_config=dict(text_hidden_size=64)),
    "nemo_speechlm": dict(head_config=dict(audio_hidden_size=64)),
    "glmasr": dict(audio_config=dict(intermediate_size=256)),
    "voxtral": dict(audio_config=dict(intermediate_size=256)),
    "glm_ocr": _GLM_MROPE,
    "glmga": _GLM_MROPE,
    "granite4_vision": dict(
        deepstack_layer_map=[[-2, 0], [-1, 1]],
        spatial_target_layers=[2],
        downsample_rate="1/2",
        image_grid_pinpoints=[[28, 28], [28, 56]],
    ),
    "gemma4": dict(text_config=SPECIAL["gemma4_text"], vision_config={}),
    "gemma4_unified": dict(text_config=SPECIAL["gemma4_unified_text"], vision_config={}),
    "granite_docling": dict(vision_config=dict(image_size=56, deepstack_visual_indexes=[0, 1])),
    "hunyuan_vl": dict(text_config=dict(rope_parameters=dict(_MROPE, mrope_section=[2, 2, 2, 2]))),
    "hyperclovax_vision_v2": dict(vision_config=_WINDOWED),
    "janus": dict(vq_config=_SMALL_VQ),
    "kimi_k25": _SAME_HEADS,
    "kosmos-2": dict(
        text_config=dict(layers=6, embed_dim=64, attention_heads=4, ffn_dim=96),
        latent_query_num=4,
    ),
    "kosmos-2.5": dict(
        text_config=dict(layers=6, embed_dim=64, attention_heads=4, ffn_dim=96),
        vision_config=dict(patch_embed_hidden_size=588),
        latent_query_num=4,
    ),
    "llama4": dict(
        text_config=SPECIAL["llama4_text"],
        vision_config=dict(
            intermediate_size=256,
            projector_input_dim=64,
            projector_output_dim=64,
            vision_output_dim=64,
        ),
    ),
    "llava_next": dict(image_grid_pinpoints=[[28, 28], [28, 56]]),
    "llava_next_video": dict(image_grid_pinpoints=[[28, 28], [28, 56]]),
    "llava_onevision": dict(image_grid_pinpoints=[[28, 28], [28, 56]]),
    "minicpm_ocr": dict(**SPECIAL["qwen3_5"], image_token_id=100),
    "minicpmv4_6": dict(**SPECIAL["qwen3_5"], image_token_id=100),
    "minicpmv4_7": dict(**SPECIAL["qwen3_5"], image_token_id=100),
    "muse_glimmer": dict(out_hidden_size=256),
    "mistral4": dict(num_key_value_heads=4),
    "mistral_large4": _SAME_HEADS,
    "mllama": dict(
        text_config=dict(cross_attention_layers=[1, 4], vocab_size=128),
        vision_config=dict(
            intermediate_layers_indices=[0],
            vision_output_dim=128,
            supported_aspect_ratios=[[1, 1]],
            max_num_tiles=1,
        ),
    ),
    "paddleocr_vl": _TEXT_MROPE,
    "pp_chart2table": {},
    "qwen2_5_omni_thinker": dict(**_TEXT_MROPE, vision_config=_WINDOWED),
    "qwen2_5_vl": dict(**_TEXT_MROPE, vision_config=_WINDOWED),
    "qwen2_vl": dict(**_TEXT_MROPE, vision_config=dict(embed_dim=64, hidden_size=64)),
    "qwen3_omni_moe_thinker": _DEEPSTACK,
    "qwen3_vl": _DEEPSTACK,
    "qwen3_vl_moe": _DEEPSTACK,
    "vipllava": dict(vision_feature_layer=[-2, -1]),
    "nemotron_h_omni": dict(
        vision_config=dict(video_temporal_patch_size=2),
        text_config=SPECIAL["nemotron_h"],
    ),
    "molmo2": dict(
        vision_config=dict(image_size=[28, 28]), adapter_config=dict(vision_feature_layer=[-1, -2])
    ),
    "fun_asr_nano": dict(adaptor_config=dict(intermediate_size=16)),
    "muse_spark": dict(
        out_hidden_size=256,
        projector_hidden_size=64,
        audio_config=dict(
            num_hidden_layers=2, patch_sizes=[4, 4], hidden_sizes=[16, 32], depths=[1, 1]
        ),
    ),
    "kyutai_speech_to_text": dict(codec_config=dict(num_filters=4, hidden_size=32)),
    "vibevoice_asr": dict(
        acoustic_tokenizer_encoder_config=dict(
            num_filters=4, depths=[1, 1], downsampling_ratios=[2]
        ),
        semantic_tokenizer_encoder_config=dict(
            num_filters=4, depths=[1, 1], downsampling_ratios=[2]
        ),
    ),
}


def _patches(model: PreTrainedModel, count: int = 16) -> torch.Tensor:
    return _random(1, count, 3 * _PATCH**2)


def _positions(side: int) -> torch.Tensor:
    """(x, y) of each patch of a square image: (1, side², 2)."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)[None]


def _gemma4(model: PreTrainedModel) -> Inputs:
    side = 2 * getattr(model.config.vision_config, "pooling_kernel_size", 1)
    patch = model.config.vision_config.patch_size
    pixels = _random(1, side**2, 3 * patch**2)
    return dict(pixel_values=pixels, image_position_ids=_positions(side))


def _mllama(model: PreTrainedModel) -> Inputs:
    return dict(
        pixel_values=_random(1, 1, 1, 3, SIDE, SIDE),
        aspect_ratio_ids=torch.tensor([[1]]),
        aspect_ratio_mask=torch.ones(1, 1, 1, dtype=torch.long),
        cross_attention_mask=torch.ones(1, 11, 1, 1, dtype=torch.long),
    )


def _minicpm(model: PreTrainedModel) -> Inputs:
    patch = model.config.vision_config.patch_size
    return dict(pixel_values=_random(1, 3, patch, 64 * patch), target_sizes=torch.tensor([[8, 8]]))


_MAKERS: dict[str, Callable[[PreTrainedModel], Inputs]] = {
    "deepseek_vl_hybrid": lambda m: dict(
        pixel_values=_random(1, 3, SIDE, SIDE),
        high_res_pixel_values=_random(1, 3, *(2 * [m.config.high_res_vision_config.image_size])),
    ),
    "fuyu": lambda m: dict(pixel_values=_random(1, 4, 3 * (m.config.patch_size**2))),
    "gemma4": _gemma4,
    "gemma4_unified": lambda m: dict(
        pixel_values=_random(1, 4, 3 * 42**2),
        image_position_ids=_positions(2),
    ),
    "granite_docling": lambda m: dict(
        pixel_values=_random(1, 1, 3, 2 * SIDE, 2 * SIDE),
        pixel_attention_mask=torch.ones(1, 1, dtype=torch.bool),
    ),
    "idefics": lambda m: dict(
        pixel_values=_random(1, 1, 3, 28, 28),
        image_attention_mask=torch.ones(1, 11, 1, dtype=torch.long),
    ),
    "instructblip": lambda m: dict(
        pixel_values=_random(1, 3, SIDE, SIDE), qformer_input_ids=torch.arange(4, 8)[None]
    ),
    "instructblipvideo": lambda m: dict(
        pixel_values=_random(1, 1, 3, SIDE, SIDE), qformer_input_ids=torch.arange(4, 8)[None]
    ),
    "lfm2_vl": lambda m: dict(
        pixel_values=_patches(m),
        spatial_shapes=torch.tensor([[4, 4]]),
        pixel_attention_mask=torch.ones(1, 16, dtype=torch.long),
    ),
    "llava_next": lambda m: dict(
        pixel_values=_random(1, 2, 3, SIDE, SIDE), image_sizes=torch.tensor([[SIDE, SIDE]])
    ),
    "minicpm_ocr": _minicpm,
    "minicpmv4_6": _minicpm,
    "minicpmv4_7": _minicpm,
    "mistral3": lambda m: dict(
        pixel_values=_random(1, 3, 2 * SIDE, 2 * SIDE),
        image_sizes=torch.tensor([[2 * SIDE, 2 * SIDE]]),
    ),
    "mllama": _mllama,
    "muse_glimmer": lambda m: dict(
        pixel_values=_random(16, 1176), image_grid_thw=torch.tensor([[1, 4, 4]])
    ),
    "video_llama_3": lambda m: dict(
        pixel_values=_random(16, 588),
        image_grid_thw=torch.tensor([[1, 4, 4]]),
        image_merge_sizes=torch.tensor([2]),
    ),
    "kosmos-2": lambda m: dict(
        pixel_values=_random(1, 3, SIDE, SIDE),
        image_embeds_position_mask=torch.tensor([[0] * 3 + [1] * 4 + [0] * 4]),
    ),
    "glmasr": lambda m: _mel(m),
    "qwen2_audio": lambda m: dict(
        _mel(m), feature_attention_mask=torch.ones(1, 128, dtype=torch.long)
    ),
    "voxtral": lambda m: _mel(m),
}
for _name in ("llava_next_video", "llava_onevision", "granite4_vision"):
    _MAKERS[_name] = _MAKERS["llava_next"]
_MAKERS["muse_spark"] = _MAKERS["muse_glimmer"]
_MAKERS["mistral_large4"] = _MAKERS["mistral3"]


def _mel(model: PreTrainedModel) -> Inputs:
    """A sound as a mel spectrogram: (1, bands, frames)."""
    audio = model.config.audio_config
    frames = 2 * getattr(audio, "max_source_positions", 64)
    return dict(input_features=_random(1, getattr(audio, "num_mel_bins", 16), frames))


def made_by_hand(model: PreTrainedModel) -> list[Inputs]:
    """Images of types whose layout is none of the common ones."""
    make = _MAKERS.get(model.config.model_type)
    return [] if make is None else [make(model)]


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
