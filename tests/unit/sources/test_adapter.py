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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function: the folder of a small model of a family, in a dtype."""
    made = {}

    def of(family="llama", dtype=torch.float32, **changes):
        key = family, dtype, *changes.items()
        if key not in made:
            made[key] = tmp_path_factory.mktemp(family)
            depth = {"gpt2": {"n_layer": 3}, "gemma3": {}}.get(family, {"num_hidden_layers": 3})
            tiny.model(family, dtype, **depth, **changes).save_pretrained(made[key])
            tiny.tokenizer().save_pretrained(made[key])
        return made[key]

    return of


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


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


F32, BF16 = torch.float32, torch.bfloat16
CASES = {
    "patterns": (
        *("llama", F32),
        {
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8},
            "alpha_pattern": {r"layers\.[12]\.self_attn\.v_proj": 3},
        },
    ),
    "rank-stabilised, on every linear map": (
        *("llama", BF16),
        {"target_modules": "all-linear", "use_rslora": True, "modules_to_save": ["lm_head"]},
    ),
    "dora": ("llama", BF16, {"use_dora": True}),
    "dora in float32": ("llama", F32, {"use_dora": True}),
    "embeddings": ("llama", BF16, {"target_modules": ["embed_tokens", "lm_head", "k_proj"]}),
    "dora on embeddings": ("llama", BF16, {"target_modules": ["embed_tokens"], "use_dora": True}),
    "biases, token rows": (
        *("llama-tied-biased", BF16),
        {"bias": "all", "trainable_token_indices": [3, 5, 100]},
    ),
    "biases of B": ("llama-tied-biased", BF16, {"lora_bias": True}),
    "transposed": (
        *("gpt2", BF16),
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
    ),
    "transposed dora": (
        *("gpt2", BF16),
        {"target_modules": ["c_fc"], "fan_in_fan_out": True, "use_dora": True},
    ),
    "experts": (
        *("mixtral", BF16),
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        },
    ),
    "router": ("mixtral", BF16, {"target_parameters": ["mlp.gate.weight"], "target_modules": []}),
    "multimodal": ("gemma3", F32, {"target_modules": r".*language_model.*\.(q_proj|o_proj)"}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_peft_merges(case, folder, tmp_path):
    """To the last bit, in memory and in the saved checkpoint."""
    family, dtype, settings = CASES[case]
    place = folder(family, dtype)
    adapter = train(place, tmp_path / "lora", **settings)
    expected = merged(place, adapter)
    base = Base.open(f"{place}+{adapter}")
    assert base.torch_dtype == dtype
    out = base.save(Plan.whole(base.depth), tmp_path / "out")
    for found in (load(out), base.load()):
        theirs, ours = expected.state_dict(), found.state_dict()
        assert theirs.keys() == ours.keys()
        wrong = [name for name in ours if not torch.equal(theirs[name], ours[name])]
        assert not wrong
        tokens = tiny.tokens()
        assert torch.equal(expected(tokens).logits, found(tokens).logits)
    assert not torch.equal(load(place)(tokens).logits, expected(tokens).logits)


def test_experts_that_an_older_transformers_kept_apart(folder, tmp_path):
    """Adapters from before transformers 5 name each expert's matrices, as the files do."""
    place, name = folder("mixtral"), "model.layers.1.block_sparse_moe.experts.2.w1"
    a, b = torch.randn(4, 64), torch.randn(96, 4)
    adapter = write(
        tmp_path / "lora",
        {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b},
        target_modules=["w1"],
    )
    base = Base.open(f"{place}+{adapter}")
    out = base.save(Plan.whole(base.depth), tmp_path / "out")
    before, after = (load_file(one / "model.safetensors") for one in (place, out))
    changed = {one for one in before if not torch.equal(before[one], after[one])}
    assert changed == {f"{name}.weight"}
    assert torch.equal(after[f"{name}.weight"], before[f"{name}.weight"] + b @ a * 1.5)


def write(out, tensors, **settings):
    """Write an adapter by hand."""
    out.mkdir()
    named = {f"base_model.model.{name}": value.contiguous() for name, value in tensors.items()}
    save_file(named, out / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, **settings}
    (out / "adapter_config.json").write_text(json.dumps(config))
    return out


# ---------------------------------------------------------------------- layer_replication


def test_each_copy_of_a_layer_gets_its_own(folder, tmp_path):
    """PEFT computes with the copies apart, but its own merge adds the changes of all copies to the
    one weight that they share."""
    place, ranges = folder(), [[0, 2], [1, 3]]
    adapter = train(place, tmp_path / "lora", layer_replication=ranges)
    theirs = PeftModel.from_pretrained(load(place), adapter)
    base = Base.open(f"{place}+{adapter}")
    assert base.depth == 4 and base.source.config.num_hidden_layers == 4
    out = base.save(Plan.whole(4), tmp_path / "out")
    tokens = tiny.tokens()
    torch.testing.assert_close(
        load(out)(tokens).logits, theirs(tokens, use_cache=False).logits, atol=1e-4, rtol=1e-4
    )
    # The same adapter, on the stack written out: there PEFT's merge is right.
    plain = tmp_path / "plain"
    Base.open(str(place)).save(Plan.parse("0:2, 1:3", 3), plain)
    alike = shutil.copytree(adapter, tmp_path / "alike")
    change(alike, layer_replication=None)
    expected = merged(plain, alike).state_dict()
    for found in (load(out), base.load()):
        assert all(torch.equal(expected[name], value) for name, value in found.state_dict().items())
    # And a plan of it, from layers that exist in the stack alone.
    cut = load(base.save(Plan.parse("0:2, 3", 4), tmp_path / "cut"))
    assert torch.equal(
        cut.model.layers[2].mlp.down_proj.weight, expected["model.layers.3.mlp.down_proj.weight"]
    )


def change(adapter, **fields):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
