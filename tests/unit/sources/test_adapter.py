"""A base with a LoRA: the merged weights are PEFT's own, and what can't be merged is refused."""

import json
import os
import shutil

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from surgery import Base, BaseError, Plan
from surgery.cli import main
from surgery.sources import kind_of, open_source, split_adapter
from surgery.sources.adapter import open as open_module
from surgery.sources.fingerprint import fingerprint

LINEAR = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test: merged weights are written there."""
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))


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


# ---------------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def lora(folder, tmp_path_factory):
    """A plain adapter of the small llama."""
    return train(folder(), tmp_path_factory.mktemp("adapters") / "lora")


@pytest.fixture
def copy(lora, tmp_path):
    return shutil.copytree(lora, tmp_path / "copy")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"peft_type": "IA3"}, "not a LoRA adapter but IA3"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed weights of its base"),
        ({"init_lora_weights": "lora_ga"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "of tomorrow"}, "not known here"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"arrow_config": {"top_k": 2}}, "routes tokens"),
        ({"use_bdlora": {"nblocks": 2}}, "block-diagonal"),
        ({"kasa_config": {}}, "KaSA"),
        ({"megatron_config": {"x": 1}}, "Megatron"),
        ({"a_new_kind": True}, "a_new_kind to True"),
        ({"use_dora": True}, "not complete"),
        ({"r": 8}, "has rank 4, and the config says 8"),
        ({"r": 0}, "broken"),
        ({"rank_pattern": {"q_proj(": 4}}, "broken"),
        ({"layer_replication": [[0, 9]]}, "layers 0 to 2"),
    ],
    ids=str,
)
def test_settings_that_a_merge_would_get_wrong(fields, reason, folder, copy):
    change(copy, **fields)
    with pytest.raises(BaseError, match=reason):
        Base.open(f"{folder()}+{copy}")


def edit(adapter, **tensors):
    """Add tensors to an adapter, or take away those that are None."""
    path = adapter / "adapter_model.safetensors"
    now = load_file(path) | tensors
    save_file({name: value for name, value in now.items() if value is not None}, path)


LAYER = "base_model.model.model.layers.0."
TABLE = "base_model.model.model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({f"{LAYER}self_attn.q_proj.lora_B.weight": None}, "not complete.* only lora_A"),
        ({f"{LAYER}self_attn.x_proj.lora_A.weight": torch.ones(4, 64)}, "not complete"),
        ({f"{LAYER}self_attn.q_proj.lora_C.weight": torch.ones(4)}, "no place for .*lora_C"),
        ({f"{LAYER}mlp.extra.weight": torch.ones(4)}, "no place for .*extra"),
        ({f"{LAYER}self_attn.q_proj.lora_A.weight": torch.ones(4, 48)}, "the base's is"),
        ({TABLE: torch.ones(tiny.VOCAB + 2, 64)}, "another vocabulary.* 130 tokens"),
        (
            {f"{LAYER}self_attn.q_proj.lora_magnitude_vector": torch.ones(64)},
            "not complete.*magnitude",
        ),
        ({f"{LAYER}self_attn.q_proj.lora_B.bias": torch.ones(64)}, "has none in the base"),
    ],
)
def test_tensors_that_have_no_place(tensors, reason, folder, copy):
    edit(copy, **tensors)
    with pytest.raises(BaseError, match=reason):
        Base.open(f"{folder()}+{copy}")


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"target_modules": ["embed_tokens"]}, "embed_tokens.weight"),
        ({"modules_to_save": ["lm_head"]}, "lm_head.weight"),
    ],
    ids=str,
)
def test_one_side_of_tied_embeddings(settings, changed, folder, tmp_path):
    place = folder("llama-tied-biased")
    adapter = train(place, tmp_path / "lora", **settings)
    with pytest.raises(BaseError, match=f"{changed}, which the base shares with"):
        Base.open(f"{place}+{adapter}")


def test_other_bases(folder, lora, tmp_path):
    """Of other widths, of more or fewer layers, quantized."""
    place = folder()
    for other, reason in (
        (folder(hidden_size=128), "does not fit this base"),
        (folder("gpt2"), "no place for"),
        (tmp_path / "nowhere", "no folder"),
    ):
        with pytest.raises(BaseError, match=reason):
            Base.open(f"{other}+{lora}")
    deep, shallow = tmp_path / "deep", tmp_path / "shallow"
    Base.open(str(place)).save(Plan.parse("0:3, 0:3", 3), deep)
    Base.open(str(place)).save(Plan.parse("0:2", 3), shallow)
    with pytest.raises(BaseError, match="a model of fewer layers"):
        Base.open(f"{deep}+{lora}")
    with pytest.raises(BaseError, match=r"no place for .*layers\.2"):
        Base.open(f"{shallow}+{lora}")
    config = json.loads((deep / "config.json").read_text())
    quantized = {**config, "quantization_config": {"quant_method": "fp8"}}
    (deep / "config.json").write_text(json.dumps(quantized))
    with pytest.raises(BaseError, match="is quantized"):
        Base.open(f"{deep}+{lora}")


def test_healed_adapters_belong_to_their_plan(folder, copy):
    change(copy, target_modules=[f"model.layers.{i}.self_attn.q_proj" for i in range(3)])
    (copy / "healing.json").write_text(json.dumps({"plan": "0:2"}))
    with pytest.raises(BaseError, match="heals the plan 0:2 of its base: save that plan"):
        Base.open(f"{folder()}+{copy}")
    (copy / "healing.json").write_text(json.dumps({"plan": "0, 2, 1"}))
    assert Base.open(f"{folder()}+{copy}").depth == 3


def test_values_that_are_not_finite_leave_nothing(folder, copy, tmp_path):
    edit(copy, **{f"{LAYER}self_attn.q_proj.lora_A.weight": torch.full((4, 64), float("nan"))})
    base = Base.open(f"{folder()}+{copy}")
    with pytest.raises(BaseError, match=r"q_proj\.weight has values that are not finite"):
        base.save(Plan.whole(3), tmp_path / "out")
    with pytest.raises(BaseError, match="not finite"):
        base.load()
    assert not (tmp_path / "out").exists()


def test_what_is_no_adapter(folder, copy):
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    with pytest.raises(BaseError, match="as a pickle only"):
        Base.open(f"{folder()}+{copy}")
    (copy / "adapter_model.bin").unlink()
    with pytest.raises(BaseError, match="nothing to merge"):
        Base.open(f"{folder()}+{copy}")
    with pytest.raises(BaseError, match="is a model, not an adapter"):
        Base.open(f"{folder()}+{folder('gpt2')}")
    with pytest.raises(BaseError, match="write BASE\\+copy"):
        Base.open(str(copy))


# ---------------------------------------------------------------------- names, caches, commands


def test_which_plus_separates(folder, copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a+b", "a+b+c", "c++"):
        shutil.copytree(folder(), tmp_path / name)
    shutil.copytree(copy, "my+lora")
    for spec, parts in {
        "a+b": None,  # a folder that is there
        "a+b+c": None,
        "./c++": None,
        "c+++copy": ("c++", "copy"),
        "a+b+my+lora": ("a+b", "my+lora"),
        "bundled+./my+lora": ("bundled", "./my+lora"),
        "org/name@v1+org/lora@v2": ("org/name@v1", "org/lora@v2"),
        "config:a+b": None,
        "model+x.gguf": None,
        "./nowhere+copy": None,
        "org/name+": None,
        "org/name+org/a+org/b": None,
    }.items():
        assert split_adapter(spec) == parts, spec
    assert kind_of("a+b") == kind_of("./nowhere+copy") == "folder"
    assert kind_of("c+++copy") == "adapter"
    assert Base.open("a+b").kind == "folder"
    base = Base.open("a+b+my+lora")
    assert (base.kind, base.name, base.recipe_name) == ("adapter", *["a+b+my+lora"] * 2)


def test_another_adapter_is_another_base(folder, copy, tmp_path):
    """To fingerprints, to the cache of merged weights, and to a base that is open."""
    spec = f"{folder()}+{copy}"
    base = Base.open(spec)
    assert Base.open(spec) is base
    weights, name = base.load().state_dict(), fingerprint(base.source, lambda *_: None)
    head = f"{LAYER}self_attn.q_proj.lora_B.weight"
    edit(copy, **{head: torch.ones(64, 4)})
    with pytest.raises(BaseError, match="changed since they were opened"):
        base.save(Plan.whole(3), tmp_path / "out")
    other = Base.open(spec)
    assert other.source.identity != base.source.identity
    assert fingerprint(other.source, lambda *_: None) not in (name, None)
    key = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(other.load().state_dict()[key], weights[key])
    plain = Base.open(str(folder()))
    assert fingerprint(plain.source, lambda *_: None) != name


def test_an_adapter_that_changes_while_it_is_opened_is_noticed(folder, copy, monkeypatch):
    """Its new weights are not merged with the old settings."""

    def changed(path, read=open_module.read_file):
        result = read(path)
        os.utime(path, (1, 1))
        return result

    monkeypatch.setattr(open_module, "read_file", changed)
    source = open_source(f"{folder()}+{copy}")
    with pytest.raises(BaseError, match="changed since they were opened"):
        source.check()


def test_merged_weights_don_t_stay_for_ever(folder, copy, tmp_path):
    """What a change or a month has made useless goes when something is merged."""
    spec, other = f"{folder()}+{copy}", tmp_path / "other"
    shutil.copytree(copy, other)
    first = Base.open(spec).source.fetch()
    second = Base.open(f"{folder()}+{other}").source.fetch()
    assert first.parent == second.parent and first.is_dir()
    edit(copy, **{f"{LAYER}self_attn.q_proj.lora_B.weight": torch.ones(64, 4)})
    changed = Base.open(spec).source.fetch()
    assert not first.exists() and second.is_dir() and changed.is_dir()
    os.utime(second, (1, 1))
    assert Base.open(f"{folder()}+{other}").source.fetch() == second  # used again
    os.utime(changed, (1, 1))
    shutil.rmtree(second)
    Base.open(f"{folder()}+{other}").source.fetch()
    assert [path for path in second.parent.iterdir() if path.is_dir()] == [second]


def test_nothing_is_written_until_the_model_runs(folder, copy, tmp_path):
    """A save merges while it writes; opening, counting and previewing read no weights."""
    base = Base.open(f"{folder()}+{copy}")
    plain = Base.open(str(folder()))
    assert base.preview(Plan.parse("0:2", 3)) == plain.preview(Plan.parse("0:2", 3))
    base.save(Plan.parse("0, 0:3", 3), tmp_path / "out")
    written = [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".safetensors"]
    assert not written
    file = base.source.fetch() / "model.safetensors"
    assert {name: value.shape for name, value in load_file(file).items()} == {
        name: tensor.shape for name, tensor in base.source.tensors.items()
    }


def test_the_command_line(folder, copy, tmp_path, capsys):
    """Save, the card, the recipe, verify; a base without the adapter is not the recipe's."""
    change(copy, base_model_name_or_path="org/another")
    spec, out = f"{folder()}+{copy}", tmp_path / "out"

    def run(*words):
        status = main.main([str(word) for word in words])
        return status, " ".join("".join(capsys.readouterr()).split())

    status, shown = run("inspect", spec)
    assert status == 0 and "adapter, merged with the LoRA adapter copy" in shown
    assert "org/another as its base" in shown
    change(copy, base_model_name_or_path="/home/someone/another")
    assert "names another as its base" in run("inspect", spec)[1]
    change(copy, base_model_name_or_path=str(folder()))
    assert "as its base" not in run("inspect", spec)[1]
    change(copy, base_model_name_or_path="org/another")
    assert run("save", spec, "0:2, 1:3", out)[0] == 0
    card = (out / "README.md").read_text()
    assert f"{folder().name}+copy with its layers rearranged" in card
    assert "merged with the LoRA adapter copy, which names org/another as its base" in card
    assert f"model: {folder().name}+copy" in (out / "recipe.yaml").read_text()
    assert run("verify", out, spec)[0] == 0
    status, shown = run("verify", out, folder())
    assert status and "applies an adapter" in shown
    again = tmp_path / "again"
    assert run("save", spec, f"@{out / 'recipe.yaml'}", again)[0] == 0
    same = [(one / "model.safetensors").read_bytes() for one in (out, again)]
    assert same[0] == same[1]
