"""What single model types need besides the common sizes: config fields, by type.

Where a type offers kinds of layers, each tiny model has at least two, in an order that a drop, a
repeat and a swap disturb.
"""

FULL, SLIDING = "full_attention", "sliding_attention"
LINEAR, CONV = "linear_attention", "conv"

_KINDS = [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL]
_HYBRID = [LINEAR, LINEAR, FULL, LINEAR, LINEAR, FULL]
_CONVS = [CONV, CONV, FULL, CONV, FULL, CONV]
_INDEXERS = ["full", "full", "shared", "full", "shared", "shared"]
_GEMMA4 = dict(layer_types=_KINDS, global_head_dim=32, num_kv_shared_layers=0)
_LLAMA4 = dict(interleave_moe_layer_step=2, attention_chunk_size=8)
_QWEN4 = dict(
    layer_types=[LINEAR, LINEAR, "indexed_attention"] * 2,
    indexer_budget=4,
    indexer_compress_ratio=2,
    ple_layer_ids=[2, 4],
)
_DOTS3 = dict(
    num_key_value_heads=4,
    swa_num_attention_heads=4,
    swa_num_key_value_heads=4,
    swa_q_lora_rank=32,
    swa_kv_lora_rank=16,
    swa_head_dim=16,
    swa_qk_nope_head_dim=8,
    swa_v_head_dim=8,
)
_GEMMA3N = dict(
    num_kv_shared_layers=2,
    layer_types=[SLIDING, FULL] * 3,
    activation_sparsity_pattern=[0.9, 0.9, 0.0, 0.0, 0.0, 0.0],
)

SPECIAL: dict[str, dict] = {
    "bamba": dict(attn_layer_indices=[2, 4]),
    "big_bird": dict(attention_type="original_full"),
    "bigbird_pegasus": dict(attention_type="original_full", encoder_layers=6),
    "cohere_compass_text": dict(
        layer_types=_KINDS,
        rope_parameters={k: dict(rope_type="default", rope_theta=1e4) for k in (FULL, SLIDING)},
    ),
    "dbrx": dict(
        attn_config=dict(kv_n_heads=2, rope_theta=1e4, clip_qkv=8.0),
        ffn_config=dict(ffn_hidden_size=32, moe_num_experts=4, moe_top_k=2),
    ),
    "dots1": dict(n_shared_experts=1),
    "dots3_note_text": _DOTS3,
    "dots3_note": dict(
        text_config=_DOTS3,
        vision_config=dict(pyramid_num_routed=[-1, 2], num_hidden_layers=2),
        audio_config=dict(num_hidden_layers=2, adapter_input_size=64, downsample_hidden_size=8),
    ),
    "ernie4_5_moe": dict(moe_layer_start_index=1, moe_layer_end_index=4, moe_layer_interval=1),
    "flint": dict(mlp_only_layers=[0, 1]),
    "gemma3n_text": _GEMMA3N,
    "gemma3n": dict(text_config=_GEMMA3N),
    "gemma4_text": _GEMMA4,
    "gemma4": dict(text_config=_GEMMA4),
    "gemma4_unified_text": _GEMMA4,
    "gemma4_unified": dict(text_config=_GEMMA4),
    "gpt-sw3": dict(scale_attn_by_inverse_layer_idx=True),
    "gpt_neo": dict(attention_types=[[["global", "local"], 3]], window_size=4),
    "granite_swa": dict(
        layer_types=[FULL, SLIDING, SLIDING] * 2, layer_rope_theta=[1e4, 1e4, 5e3, 1e4, 5e3, 0.0]
    ),
    "granitemoehybrid": dict(layer_types=[LINEAR, LINEAR, FULL, LINEAR, FULL, LINEAR]),
    "hunyuan_v1_moe": dict(moe_topk=[2] * 6, moe_intermediate_size=[32] * 6),
    "inkling2_text": dict(n_layers_per_attn_res_block=2, unpadded_vocab_size=128),
    "jamba": dict(attn_layer_period=2, attn_layer_offset=1),
    "laguna": dict(
        layer_types=[FULL, SLIDING, SLIDING] * 2, num_attention_heads_per_layer=[4, 8, 8, 4, 8, 4]
    ),
    "lfm2": dict(layer_types=_CONVS),
    "lfm2_moe": dict(layer_types=_CONVS),
    "llama4_text": _LLAMA4,
    "llama4": dict(text_config=_LLAMA4),
    "longcat_flash": dict(num_key_value_heads=4, head_dim=8),
    "mamba2": dict(num_heads=8),
    "minimax": dict(layer_types=_HYBRID),
    "mllama": dict(text_config=dict(cross_attention_layers=[1, 4])),
    "modernbert-decoder": dict(layer_types=[FULL, SLIDING, FULL, SLIDING, SLIDING, FULL]),
    "nemotron_h": dict(
        layers_block_type=[LINEAR, "moe", FULL, "mlp", LINEAR, FULL], num_hidden_layers=...
    ),
    "olmo_hybrid": dict(layer_types=_HYBRID),
    "prophetnet": dict(num_encoder_layers=6),
    "qwen3_next": dict(layer_types=_HYBRID, mlp_only_layers=[1]),
    "qwen3_5": dict(text_config=dict(layer_types=_HYBRID)),
    "qwen3_5_moe": dict(text_config=dict(layer_types=_HYBRID)),
    "qwen3_5_text": dict(layer_types=_HYBRID),
    "qwen3_5_moe_text": dict(layer_types=_HYBRID),
    "qwen2_5_vl": dict(
        text_config=dict(
            rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3])
        )
    ),
    "qwen4_exp_text": _QWEN4,
    "qwen4_exp": dict(text_config=_QWEN4),
    "reformer": dict(
        axial_pos_shape=[8, 8],
        axial_pos_embds_dim=[16, 48],
        attn_layers=["local", "lsh"] * 3,
        hash_seed=0,
        local_attn_chunk_length=4,
        lsh_attn_chunk_length=4,
        max_position_embeddings=64,
        num_buckets=4,
    ),
    "rwkv": dict(rescale_every=2),
    "smollm3": dict(no_rope_layer_interval=3),
    "xlstm": dict(hidden_size=128),
    "xmod": dict(default_language="en_XX"),
    "zamba": dict(
        layers_block_type=[LINEAR, "hybrid", LINEAR, "hybrid", LINEAR, "hybrid"],
        attention_hidden_size=None,
        attention_head_dim=None,
    ),
    "zamba2": dict(
        layers_block_type=[LINEAR, "hybrid", LINEAR, "hybrid", LINEAR, LINEAR],
        num_mem_blocks=1,
        head_dim=...,  # left to the class
    ),
    "zaya": dict(num_experts_per_tok=1, layer_types=["hybrid", "hybrid_sliding"] * 3),
}
# The smallest assistants of Gemma 4 take all keys and values from another model.
for _name in ("gemma4_assistant", "gemma4_unified_assistant"):
    SPECIAL[_name] = dict(
        text_config=dict(
            _GEMMA4,
            num_kv_shared_layers=6,
            hidden_size_per_layer_input=0,
            vocab_size_per_layer_input=0,
        )
    )
# As many key-value heads as heads.
for _name in [
    "axk1",
    "axk2",
    "bailing_hybrid",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "kimi_linear",
    "minicpm3",
    "youtu",
    "hy_v4",
]:
    SPECIAL[_name] = dict(num_key_value_heads=4)
for _name in ("glm_moe_dsa", "hy_v4"):
    SPECIAL[_name]["indexer_types"] = _INDEXERS
# Decoders of encoder-decoder models.
for _name in [
    "bart",
    "blenderbot",
    "blenderbot-small",
    "marian",
    "mbart",
    "mvp",
    "pegasus",
    "plbart",
    "whisper",
]:
    SPECIAL[_name] = dict(encoder_layers=6)
for _name in ["qwen2", "qwen3"]:
    SPECIAL[_name] = dict(use_sliding_window=True)
for _name in ["qwen2_moe", "qwen3_moe"]:
    SPECIAL[_name] = dict(use_sliding_window=True, mlp_only_layers=[1, 4])
for _name in [
    "cohere2",
    "olmo3",
    "afmoe",
    "gemma2",
    "gemma3_text",
    "exaone4",
    "gpt_oss",
    "vaultgemma",
]:
    SPECIAL[_name] = dict(layer_types=_KINDS)
