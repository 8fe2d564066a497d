"""A base with a LoRA: the merged weights are PEFT's own, and what can't be merged is refused."""

import json
import shutil

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from surgery import Base, BaseError, Plan, SurgeryError
from surgery.sources import kind_of, split_adapter

LINEAR = ["q_proj", "v_proj", "down_proj"]


def load(folder, dtype="auto"):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def train(base, out, **settings):
    """Write an adapter of the model in `base`, all of its tensors drawn at random."""
    settings = {"r": 4, "lora_alpha": 6, **settings}
    if not settings.keys() & {"target_modules", "target_parameters"}:
        settings["target_modules"] = LINEAR
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = get_peft_model(load(base), LoraConfig(**settings))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    noise = 0.2 * torch.randn(parameter.shape)
                    parameter.add_(noise.to(parameter.dtype).abs_() if "magn" in name else noise)
        model.save_pretrained(out)
    return out


def merged(base, adapter):
    return PeftModel.from_pretrained(load(base), adapter).merge_and_unload()


CASES = {
    "plain": ("llama", {}),
    "every linear map": ("llama", {"target_modules": "all-linear", "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8},
            "alpha_pattern": {r"layers\.[23]\.self_attn\.v_proj": 3},
        },
    ),
    "dora": ("llama", {"use_dora": True}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "lm_head", "k_proj"]}),
    "dora on embeddings": ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "modules to save": ("llama", {"modules_to_save": ["lm_head", "norm"]}),
    "biases": ("llama-tied-biased", {"bias": "all"}),
    "biases of B": ("llama-tied-biased", {"lora_bias": True}),
    "token rows": ("llama-tied-biased", {"trainable_token_indices": [3, 5, 100]}),
    "transposed": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "transposed dora": (
        "gpt2",
        {"target_modules": ["c_fc"], "fan_in_fan_out": True, "use_dora": True},
    ),
    "experts": (
        "mixtral",
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        },
    ),
    "router": ("mixtral", {"target_parameters": ["mlp.gate.weight"], "target_modules": []}),
    "multimodal": ("gemma3", {"target_modules": r".*language_model.*\.(q_proj|o_proj)"}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_peft_merges(case, dtype, tiny_folder, tmp_path):
    """To the last bit, in memory and in the saved checkpoint."""
    family, settings = CASES[case]
    folder = tiny_folder(family, dtype=dtype)
    adapter = train(folder, tmp_path / "lora", **settings)
    expected = merged(folder, adapter)
    base = Base.open(f"{folder}+{adapter}")
    out = base.save(Plan.whole(base.depth), tmp_path / "out")
    for found in (load(out), base.load()):
        theirs, ours = expected.state_dict(), found.state_dict()
        assert theirs.keys() == ours.keys()
        wrong = [name for name in ours if not torch.equal(theirs[name], ours[name])]
        assert not wrong
        tokens = tiny.tokens()
        assert torch.equal(expected(tokens).logits, found(tokens).logits)
    assert not torch.equal(load(folder)(tokens).logits, expected(tokens).logits)
