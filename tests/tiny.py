"""Tiny random models of the families that surgery promises right, and texts for them.

Every weight is drawn apart (norms and biases too), so that two layers are never alike by chance.
"""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

DEPTH = 6
VOCAB = 128
_COMMON = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=DEPTH,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_SLIDING = ["sliding_attention", "sliding_attention", "full_attention"] * 2
_GEMMA3 = dict(_COMMON, sliding_window=8, layer_types=_SLIDING, query_pre_attn_scalar=16)

FAMILIES: dict[str, tuple[str, dict]] = {
    "llama": ("llama", dict(_COMMON)),
    "llama-tied-biased": (
        "llama",
        dict(_COMMON, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    ),
    "mistral": ("mistral", dict(_COMMON, sliding_window=8)),
    "mixtral": ("mixtral", dict(_COMMON, num_local_experts=4, num_experts_per_tok=2)),
    "qwen2": (
        "qwen2",
        dict(_COMMON, use_sliding_window=True, sliding_window=8, max_window_layers=3),
    ),
    "qwen3": (
        "qwen3",
        dict(_COMMON, use_sliding_window=True, sliding_window=8, max_window_layers=3),
    ),
    "gemma2": ("gemma2", dict(_COMMON, sliding_window=8, query_pre_attn_scalar=16)),
    "gemma3_text": ("gemma3_text", dict(_GEMMA3)),
    "gemma3": (
        "gemma3",
        dict(
            text_config=dict(_GEMMA3, model_type="gemma3_text"),
            vision_config=dict(
                model_type="siglip_vision_model",
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=28,
                patch_size=14,
            ),
            mm_tokens_per_image=4,
            boi_token_index=100,
            eoi_token_index=101,
            image_token_index=102,
        ),
    ),
    "gpt2": (
        "gpt2",
        dict(
            vocab_size=VOCAB,
            n_embd=64,
            n_layer=DEPTH,
            n_head=4,
            n_positions=256,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
}


def config(family: str, **changes) -> PreTrainedConfig:
    """The tiny config of a family, with some fields changed."""
    model_type, fields = FAMILIES[family]
    return CONFIG_MAPPING[model_type](**{**fields, **changes})


def model(family: str, dtype: torch.dtype = torch.float32, **changes) -> PreTrainedModel:
    """A random model of it, every parameter perturbed."""
    cfg = config(family, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(cfg, dtype=dtype)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn(parameter.shape, dtype=dtype) * 0.05)
    return made.eval()


def tokens(length: int = 24, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Random tokens, shape (batch, length), none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 100, (batch, length), generator=generator)


def tokenizer():
    """A byte-level tokenizer that knows every ASCII character as a token of its own."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", *(chr(c) for c in range(32, 127))]
    inner = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [], fuse_unk=False))
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
