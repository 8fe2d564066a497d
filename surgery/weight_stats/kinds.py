"""The kind of a stored tensor, from its name as the model families spell it."""

from __future__ import annotations

import re

KINDS = (
    "embedding",
    "q",
    "k",
    "v",
    "qkv",
    "o",
    "gate",
    "up",
    "gate + up",
    "down",
    "experts",
    "router",
    "norms",
    "biases",
    "head",
    "other",
)
# The first that fits; biases and norms before the matrices whose names they carry.
_IN_LAYER = [
    (kind, re.compile(rf"(?:^|[._])(?:{pattern})(?:[._]|$)", re.I))
    for kind, pattern in (
        ("norms", r"\w*norm\d?|ln_?\w*"),
        ("biases", r"bias"),
        ("router", r"router|mlp\.gate\.weight|block_sparse_moe\.gate"),
        ("experts", r"experts?|shared_experts?"),
        ("qkv", r"qkv\w*|wqkv|c_attn|query_key_value|w_pack|in_proj_qkv\w*"),
        ("q", r"q_proj|q_a_proj|q_b_proj|wq|query"),
        ("k", r"k_proj|wk|key"),
        ("v", r"v_proj|wv|value"),
        ("o", r"o_proj|out_proj|attn\.c_proj|attention\.dense|self_attn\.dense|wo"),
        ("gate + up", r"gate_up_proj|gate_and_up_proj|w12"),
        ("gate", r"gate_proj|w1"),
        ("up", r"up_proj|c_fc|fc1|fc_in|w3|dense_h_to_4h"),
        ("down", r"down_proj|mlp\.c_proj|fc2|fc_out|w2|dense_4h_to_h"),
    )
]
_OUTSIDE = [
    (kind, re.compile(pattern, re.I))
    for kind, pattern in (
        ("norms", r"norm|(?:^|\.)ln_"),
        ("biases", r"bias$"),
        ("head", r"lm_head|embed_out|output\.weight"),
        ("embedding", r"embed|wte|wpe"),
    )
]


def kind_in_layer(rest: str) -> str:
    """The kind of a layer's tensor, from its name without the layer's prefix."""
    return next((kind for kind, pattern in _IN_LAYER if pattern.search(rest)), "other")


def kind_outside(name: str) -> str:
    """The kind of a tensor that belongs to no layer."""
    return next((kind for kind, pattern in _OUTSIDE if pattern.search(name)), "other")
