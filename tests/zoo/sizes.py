"""Tiny values of config fields, by name. Knows no model types: those are in `special`.

Every model is 6 layers deep and 64 wide, with two kinds of whatever it has two kinds of, so that
a layer that ends up in the wrong place shows.
"""

DEPTH = 6
VOCAB = 128
WINDOW = 8  # of sliding attention, in tokens

_BY_VALUE = {
    # depth; encoders and towers stay shallow
    DEPTH: """num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers
        num_blocks""",
    # width
    64: """hidden_size d_model n_embd emb_dim embedding_size input_embedding_size
        output_embedding_size attention_hidden_size word_embed_proj_dim lru_width
        backbone_hidden_size out_hidden_size mm_embed_dim output_proj_dims
        projector_input_dim projector_output_dim
        vision_output_dim adapter_in_dim adapter_out_dim max_source_positions""",
    96: """intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim d_inner dff dim_ff d_ff
        ffn_hidden_size feed_forward_size intermediate_size_mlp dense_intermediate_size
        prefix_dense_intermediate_size mlp_dim""",
    32: """moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size
        shared_experts_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size
        q_lora_rank index_n_heads rel_extent router_hidden_size output_channels""",
    VOCAB: """vocab_size vocab_size_per_layer_input vocab_offset decoder_vocab_size mamba_d_ssm""",
    256: """max_position_embeddings n_positions n_ctx max_seq_len max_target_positions
        context_length""",
    # heads, mixers, experts
    4: """num_attention_heads n_head n_heads num_heads decoder_attention_heads
        encoder_attention_heads attention_heads num_encoder_attention_heads
        num_decoder_attention_heads conf_num_attention_heads swa_num_attention_heads num_experts
        n_routed_experts num_local_experts moe_num_experts index_topk linear_num_value_heads
        linear_num_heads linear_num_key_value_heads num_codebooks centroid_intermediate_top_k""",
    2: """num_key_value_heads num_kv_heads swa_num_key_value_heads num_experts_per_tok moe_topk
        top_k_experts moe_k zero_expert_num o_groups indexer_n_heads linear_num_key_heads n_groups
        n_mamba_heads expert_layer_period num_dense_layers first_k_dense_replace encoder_layers
        num_encoder_layers conf_num_hidden_layers depth type_vocab_size altup_num_inputs
        split_ngram_parts eos_token_id""",
    16: """head_dim kv_channels dim_head d_head attention_head_size d_kv global_head_dim
        swa_head_dim local_attention kv_lora_rank qk_head_dim o_lora_rank index_head_dim
        indexer_head_dim mamba_d_head mamba_chunk_size chunk_size mamba_head_dim
        linear_key_head_dim linear_value_head_dim linear_head_dim num_position_embeddings
        position_embedding_size mm_posemb_size num_mel_bins num_centroids hc_lowrank""",
    8: """hidden_size_per_layer_input qk_rope_head_dim qk_nope_head_dim v_head_dim mamba_d_state
        mamba_n_heads state_size ssm_state_size time_step_rank mamba_dt_rank mamba_num_heads
        block_size rotary_dim adapter_rank laurel_rank make_ngram_vocab_size_divisible_by
        sliding_window sliding_window_size attention_window_size window_size attention_chunk_size
        keep_window_size""",
    3: "max_window_layers conv_L_cache",
    1: "num_global_layers n_group topk_group num_expert_group indexer_kv_heads bos_token_id",
    0: "num_mtp_layers num_nextn_predict_layers pad_token_id",
    28: "image_size",
    14: "patch_size",
    200: "ngram_vocab_size_base",
}
SIZES = {name: value for value, names in _BY_VALUE.items() for name in names.split()}
SIZES |= dict(
    embedding_dim=None,
    unpadded_vocab_size=None,
    hidden_dropout=0.0,
    layerdrop=0.0,
    is_decoder=True,
    is_encoder_decoder=False,
    use_cache=True,
    use_mamba_kernels=False,
)
