"""Quantized checkpoints: module lists are renumbered and agree with the stored tensors."""

import copy
import json
import re
import shutil

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers.quantizers.quantizers_utils import should_convert_module
from zoo import build, quantized

from surgery import Base, BaseError, Plan, Refused, SaveError, stack
from surgery.architecture import Anatomy, rewrite, skeleton
from surgery.architecture.apply.combine import combine
from surgery.architecture.config.quantization import renumber
from surgery.architecture.config.rewrite import edit
from surgery.verification.saved import verify_saved


def fp8(*names):
    return dict(quant_method="fp8", modules_to_not_convert=list(names))


def gptq(**dynamic):
    return dict(quant_method="gptq", dynamic=dynamic)


def groups(ignore, targets=("Linear",)):
    group = {"targets": list(targets), "weights": {"num_bits": 8}}
    return dict(quant_method="compressed-tensors", ignore=ignore, config_groups={"group_0": group})


def rewritten(quantization, plan, depth=tiny.DEPTH):
    config = tiny.config("llama", num_hidden_layers=depth, quantization_config=quantization)
    return rewrite(config, plan, depth, Anatomy.of(config).modules).quantization_config


def in_layers(*layers, rest=("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj")):
    return [f"model.layers.{layer}.{part}" for layer in layers for part in rest]


def test_a_second_rewrite_gives_what_the_first_one_gave():
    config = tiny.config("llama", quantization_config=fp8("lm_head", "model.layers.5.mlp"))
    before = config.to_json_string()
    for _ in range(2):
        new = rewrite(config, [0, 1, 4, 5], 6, Anatomy.of(config).modules).quantization_config
        assert new == fp8("lm_head", "model.layers.3.mlp")
    assert config.to_json_string() == before


@pytest.mark.parametrize(
    ("old", "plan", "new"),
    [
        (fp8("model.layers.5.mlp"), [5, 0, 5], fp8("model.layers.0.mlp", "model.layers.2.mlp")),
        (fp8("layers.1.mlp", "q_proj"), [1, 0], fp8("layers.0.mlp", "q_proj")),
        (fp8("model.layers.61.eh_proj", "lm_head"), [0, 1], fp8("lm_head")),
        # As in gpt-oss, for all layers.
        (fp8("model.layers.*.mlp.gate", "lm_head"), [5], fp8("model.layers.*.mlp.gate", "lm_head")),
        # Its suffix alone would also match layer 11.
        (fp8("1.mlp.up_proj"), [*range(6)] * 2, fp8(*in_layers(1, 7, rest=["mlp.up_proj"]))),
        (groups(["re:.*[.]0[.]mlp.*"]), [1, 0], groups(["re:.*[.]1[.]mlp.*"])),
        (groups(["re:.*[.][0-2][.]mlp.*"]), [1, 3, 5], groups(in_layers(0))),
        (groups(["re:.*layers\\..\\.mlp.*"]), [0, 1], groups(["re:.*layers\\..\\.mlp.*"])),
        (
            groups(["lm_head"], in_layers(4, rest=["mlp.up_proj"])),
            [0, 4, 4],
            groups(["lm_head"], in_layers(1, 2, rest=["mlp.up_proj"])),
        ),
        (
            dict(quant_method="compressed-tensors", ignore="model.layers.3.mlp.up_proj"),
            [3, 2],
            dict(quant_method="compressed-tensors", ignore="model.layers.0.mlp.up_proj"),
        ),
        (gptq(**{"+:.*\\.3\\..*": {"bits": 8}}), [3, 2], gptq(**{"+:.*\\.0\\..*": {"bits": 8}})),
        (
            gptq(**{"-:.*\\.[0-2]\\.mlp\\.down_proj": {}}),
            [0, 1, 2, 4],
            gptq(**{"-:.*\\.[0-2]\\.mlp\\.down_proj": {}}),
        ),
        (
            # Each replaces the next one.
            gptq(**{f"model.layers.{i}.mlp.up_proj": {"bits": i} for i in (2, 3, 4)}),
            [1, 2, 3, 4],
            gptq(**{f"model.layers.{i - 1}.mlp.up_proj": {"bits": i} for i in (2, 3, 4)}),
        ),
        (
            dict(quant_method="modelopt", ignore=["model.layers.0*", "lm_head"]),
            [1, 0],
            dict(quant_method="modelopt", ignore=["model.layers.1*", "lm_head"]),
        ),
        (
            dict(quant_method="auto-round", block_name_to_quantize="model.layers,lm_head"),
            [1, 0],
            dict(quant_method="auto-round", block_name_to_quantize="model.layers,lm_head"),
        ),
        (
            dict(quant_method="vptq", config_for_layers={"model.layers.1.mlp.up_proj": {"a": 1}}),
            [1, 1],
            dict(
                quant_method="vptq",
                config_for_layers={f"model.layers.{p}.mlp.up_proj": {"a": 1} for p in (0, 1)},
            ),
        ),
        (
            dict(quant_method="gptq", dataset=["Layers: model.layers.3.mlp"], bits=4),
            [1, 0],
            dict(quant_method="gptq", dataset=["Layers: model.layers.3.mlp"], bits=4),
        ),
    ],
)
def test_names_and_patterns_follow_the_layers(old, plan, new):
    given_ = copy.deepcopy(old)
    assert rewritten(given_, plan) == new
    assert given_ == old


@pytest.mark.parametrize(
    ("quantization", "plan"),
    [
        (gptq(**{"-:.*\\.[0-2]\\.mlp\\.down_proj": {}}), [0, 3, 1]),
        (gptq(**{"+:model\\.layers\\.(1|2)\\..*": {}}), [0, 2, 1, 3, 1]),
        (dict(quant_method="x", targets="re:.*[.][0-2][.]mlp.*"), [0, 3, 1]),
        (dict(quant_method="x", ignore="model.layers.3.mlp.up_proj"), [3, 3]),
    ],
)
def test_what_can_not_be_renumbered_is_refused(quantization, plan):
    with pytest.raises(Refused, match="can't be renumbered"):
        rewritten(quantization, plan)


def test_a_layers_number_does_not_begin_another():
    """“model.layers.1” is a prefix of “model.layers.10”, which some tools treat as a match."""
    new = rewritten(fp8("model.layers.1"), [*range(6)] * 2)["modules_to_not_convert"]
    for layer in range(12):
        name = f"model.layers.{layer}.mlp.up_proj"
        expected = layer % 6 == 1
        assert should_convert_module(name, new) != expected
        assert any(x in name for x in new) == expected  # vLLM's interpretation of AWQ's list
        assert any(re.match(x, name) for x in new) == expected  # transformers 4's interpretation


def test_a_vision_towers_layers_stay_where_they_are():
    names = ["model.vision_tower.encoder.layers.1.mlp.fc1", "model.language_model.layers.1.mlp"]
    config = tiny.config("gemma3", quantization_config=fp8(*names))
    new = rewrite(config, [0, 0, 1], tiny.DEPTH, Anatomy.of(config).modules).quantization_config
    assert new == fp8(names[0], "model.language_model.layers.2.mlp")


PARTS = ["model", "layers", ".", r"\.", "[.]", ".*", "*", "0", "1", "2", "[0-2]", "(1|3)", "mlp"]
PARTS += ["down_proj", "self_attn", "model.layers.1", "model.layers.1.", "model.layers.2.mlp"]
PATTERN = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join)
MODULES = {
    f"model.layers.{i}.{rest}": ("model.layers.", i, f".{rest}")
    for i in range(4)
    for rest in ("mlp.down_proj", "self_attn.q_proj")
} | {"lm_head": None, "model.embed_tokens": None}


def selected(method, quantization, name):
    """The result of each method's own tool for a module."""
    if method == "fp8":
        return not should_convert_module(name, quantization["modules_to_not_convert"])
    if method == "compressed-tensors":
        ignored = quantization["ignore"]
        return any(re.match(x[3:], name) if x[:3] == "re:" else x == name for x in ignored)
    rules = quantization["dynamic"].items()
    return next((v for x, v in rules if re.match(x.removeprefix("-:"), name)), None)


@settings(max_examples=200)
@given(
    st.sampled_from(["fp8", "compressed-tensors", "gptq"]),
    st.lists(PATTERN, min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 3), min_size=1, max_size=14),
)
def test_what_is_not_refused_selects_the_same_modules(method, patterns, plan):
    if method == "gptq":
        quantization = {"dynamic": {f"-:{x}": n for n, x in enumerate(patterns)}}
    elif method == "fp8":
        quantization = {"modules_to_not_convert": patterns}
    else:
        quantization = {"ignore": [f"re:{x}" for x in patterns]}
    try:
        before = {name: selected(method, quantization, name) for name in MODULES}
    except re.error:
        return  # no tool accepts this
    try:
        new = renumber(quantization, MODULES, plan)
    except Refused:
        return
    for name, where in MODULES.items():
        if where is None:
            assert selected(method, new, name) == before[name]
            continue
        for p, i in enumerate(plan):
            if i == where[1]:
                assert selected(method, new, f"{where[0]}{p}{where[2]}") == before[name]


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3_5"])
def test_nothing_changes_the_bases_own_config(family):
    """qwen3_5's class takes a part of the config, to which transformers hands the quantization."""
    make = build.config if family == "qwen3_5" else tiny.config
    config = make(family)
    path = Anatomy.of(config).stack.paths[0]
    names = ["lm_head", f"{path}.1", f"{path}.3.mlp", f"model.vision_tower.{path}.4.mlp"]
    config.quantization_config = fp8(*names)
    config.get_text_config().quantization_config = fp8(*names)
    before = config.to_json_string()
    anatomy = Anatomy.of(config)
    for plan in ([0, 1, 4, 5], [5, 4, 4], [*range(6)] * 2):
        skeleton(anatomy, plan)
        rewrite(config, plan, 6, anatomy.modules)
        assert config.to_json_string() == before
    edit(config, {"num_hidden_layers": 3} if family == "llama" else {})
    combine({"": anatomy, "b": anatomy})
    assert anatomy.tables == {} and anatomy.quantized == "fp8"
    assert config.to_json_string() == before


def test_a_quantization_config_of_the_text_model_follows_too():
    config = tiny.config("gemma3")
    config.text_config.quantization_config = fp8("model.language_model.layers.1.mlp")
    new = rewrite(
        config, [1, 0], tiny.DEPTH, Anatomy.of(config).modules
    ).text_config.quantization_config
    assert new == fp8("model.language_model.layers.0.mlp")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function: the folder of a checkpoint of a format, made once; or a copy of it."""
    folders = {}

    def made(title, copy=None):
        if title not in folders:
            folders[title] = tmp_path_factory.mktemp("made") / "base"
            quantized.make(quantized.FORMATS[title], folders[title])
        return shutil.copytree(folders[title], copy, dirs_exist_ok=True) if copy else folders[title]

    return made


METHODS = ["fp8, llama", "gptq, llama", "compressed-tensors, qwen2"]


@pytest.fixture(params=METHODS)
def home(request, tmp_path, made):
    """A folder to be changed."""
    return made(request.param, tmp_path / "base")


@pytest.fixture(scope="module", params=METHODS)
def unchanged(request, made):
    """A folder that stays as it is, and whose base stays open."""
    folder = made(request.param)
    base = Base.open(str(folder))
    yield folder
    del base


def change(folder, edit_):
    """Let `edit_` change the quantization config in config.json."""
    config = json.loads((folder / "config.json").read_text())
    edit_(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))


def says_less(quantization):
    """Declare unquantized modules as quantized."""
    for key, empty in (
        ("modules_to_not_convert", ["lm_head"]),
        ("ignore", ["lm_head"]),
        ("dynamic", {}),
    ):
        if key in quantization:
            quantization[key] = empty


def test_a_base_whose_config_says_something_else_is_not_saved(home, tmp_path):
    change(home, says_less)
    base = Base.open(str(home))
    with pytest.raises(BaseError, match=r"layers\.\d\.\S+ is stored unquantized"):
        base.save(Plan.parse("0:2, 4:6", 6), tmp_path / "out", verified=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


def test_a_saved_config_that_says_something_else_is_found(unchanged, tmp_path):
    home = str(unchanged)
    out = Base.open(home).save(Plan.parse("1, 4, 5", 6), tmp_path / "out")
    verify_saved(out, home, lambda *_: None, Base.open)
    change(out, says_less)
    with pytest.raises(SaveError, match=r"layers\.\d\.\S+ is stored unquantized"):
        verify_saved(out, home, lambda *_: None, Base.open)
    config = json.loads((out / "config.json").read_text())
    del config["quantization_config"]
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(SaveError, match="no quantization_config"):
        verify_saved(out, home, lambda *_: None, Base.open)


def test_a_list_that_comes_out_wrong_refuses_the_save(unchanged, tmp_path, monkeypatch):
    """Lists that were renumbered twice must be found by a separate check."""
    monkeypatch.setattr(
        "surgery.architecture.config.rewrite.renumber", lambda old, *_: copy.deepcopy(old)
    )
    base = Base.open(str(unchanged))
    with pytest.raises(Refused, match="The quantization config can't express this plan"):
        base.save(Plan.parse("5, 0:2, 4", 6), tmp_path / "out", verified=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plain", [True, False])
def test_experts_stored_in_one_are_looked_at_too(made, tmp_path, plain):
    """As in fp8 checkpoints written by transformers 5."""
    made("fp8, qwen3_moe", tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if ".experts." not in n}
    for name, tensor in build.model("qwen3_moe").state_dict().items():
        if ".experts." not in name or f".{quantized.PLAIN_LAYER}." in name or plain:
            tensors.setdefault(name, tensor.contiguous())
        else:
            tensors[name] = tensor.to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = torch.ones(len(tensor), 1, 1)
    save_file(tensors, file)
    base = Base.open(str(tmp_path / "base"))
    if not plain:
        base.save(Plan.parse("4, 0, 4", 6), tmp_path / "out")
        return
    with pytest.raises(BaseError, match=r"mlp\.experts is stored unquantized"):
        base.save(Plan.parse("4, 0, 4", 6), tmp_path / "out")


def test_what_torchao_writes_into_its_files_is_not_lost_without_a_word(made, tmp_path):
    made("fp8, llama", tmp_path / "base")
    change(tmp_path / "base", lambda quantization: quantization.update(quant_method="torchao"))
    with pytest.raises(Refused, match="torchao"):
        Base.open(str(tmp_path / "base")).save(Plan.parse("0:3", 6), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_packed_weights_without_their_scales_are_refused(made, tmp_path):
    made("fp8, llama", tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.2.mlp.up_proj.weight_scale_inv"]
    save_file(tensors, file)
    with pytest.raises(BaseError, match=r"layers\.2\.mlp\.up_proj .* scales are missing"):
        Base.open(str(tmp_path / "base")).save(Plan.parse("0:3", 6), tmp_path / "out")


def test_what_gptq_leaves_out_in_every_layer_need_not_be_written_down(made, tmp_path):
    """Its tools skip a family's routers without listing them in the config."""
    made("gptq, llama", tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    for name in [n for n in tensors if "k_proj" in n]:
        del tensors[name]
    plain = build.model("llama").state_dict()
    save_file(tensors | {n: t.contiguous() for n, t in plain.items() if "k_proj" in n}, file)
    base = Base.open(str(tmp_path / "base"))
    out = base.save(Plan.parse("1, 4, 5", 6), tmp_path / "out")
    verify_saved(out, str(tmp_path / "base"), lambda *_: None, Base.open)


@pytest.mark.parametrize("name", ["fp8, llama", "gptq, llama", "compressed-tensors, qwen2"])
def test_weights_that_only_a_side_file_calls_quantized_are_refused(made, tmp_path, name):
    made(name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "quantize_config.json").write_text(json.dumps(config.pop("quantization_config")))
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = Base.open(str(tmp_path))
    with pytest.raises(BaseError, match=r"quantized .* config.json has no quantization_config"):
        base.preview(Plan.whole(6))
    with pytest.raises(BaseError, match="no quantization_config"):
        base.load()


@pytest.mark.parametrize(
    ("home", "file", "key"),
    [
        ("fp8, llama", "quantize_config.json", "modules_to_not_convert"),
        ("gptq, llama", "quant_config.json", "modules_to_not_convert"),
        ("compressed-tensors, qwen2", "hf_quant_config.json", "exclude_modules"),
    ],
    indirect=["home"],
)
def test_side_files_are_carried_with_their_names_renumbered(home, tmp_path, file, key):
    content = {"producer": {"version": "0.1"}, "quantization": {key: in_layers(4)}}
    (home / file).write_text(json.dumps(content))
    base = Base.open(str(home))
    for text, places in (("5, 4, 1", [1]), ("0:2, 4, 4", [2, 3])):
        out = base.save(Plan.parse(text, 6), tmp_path / "out", overwrite=True)
        content["quantization"][key] = in_layers(*places)
        assert sorted(json.loads((out / file).read_text())["quantization"][key]) == sorted(
            content["quantization"][key]
        )


@pytest.mark.parametrize("home", ["fp8, llama"], indirect=True)
def test_a_side_file_that_can_not_be_renumbered_refuses_the_save(home, tmp_path):
    (home / "quantize_config.json").write_text(json.dumps(gptq(**{"-:.*\\.[0-2]\\.mlp.*": {}})))
    with pytest.raises(Refused, match="can't be renumbered"):
        Base.open(str(home)).save(Plan.parse("0, 3, 1", 6), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stack_of_quantized_bases_says_so_of_both(unchanged, tmp_path):
    base = Base.open(str(unchanged))
    both, plan = stack(base, {"b": base}, Plan.parse("b/3:6, 0:2, 4", 6, {"b": 6}))
    out = both.save(plan, tmp_path / "out")
    assert quantized.says(out) == quantized.packed_on_disk(out)
    assert not any(".1." in name for name in quantized.packed_on_disk(out))


@pytest.mark.parametrize("home", ["fp8, llama"], indirect=True)
def test_random_weights_of_a_quantized_config_are_plain(home):
    base = Base.open(f"config:{home / 'config.json'}")
    assert base.anatomy.quantized is None
    base.operate(Plan.parse("0:2, 4:6", 6))
