"""Tensors of every stored dtype: a checkpoint has the same values as the patient."""

import json
import shutil
from functools import cache

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from surgery import Base, Plan, Refused
from surgery.architecture import Anatomy
from surgery.architecture.inspect.dtypes import loaded_dtypes
from surgery.checkpoint.trained import TrainedTensors

STORED = {
    "F32": torch.float32,
    "F64": torch.float64,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I32": torch.int32,
    "BOOL": torch.bool,
}
WIDENED = ("F64", "F16", "F8_E4M3", "I8")  # saved as float32 too: one of each sort
DEPTH = 4
PLANS = ["0, 2:4", "0:4, 3@identity", "0:2, 1@scale=0.3, 3", "0:2, 1@average, 3", "0:2, 1@random"]
# A layer that begins in each of these ways, and one that is left out.
ALL_AT_ONCE = "0, 1, 1@random, 0@scale=0.3, 1@average, 3@identity"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A function that makes a bfloat16 base with projections stored in another dtype."""
    plain = tmp_path_factory.mktemp("plain")
    tiny.model("llama", torch.bfloat16, num_hidden_layers=DEPTH).save_pretrained(plain)
    kept_open = []  # what follows from a config is worked out once for all tests

    @cache
    def folder(word, which="proj"):
        out = tmp_path_factory.mktemp(word)
        shutil.copytree(plain, out, dirs_exist_ok=True)
        tensors = load_file(plain / "model.safetensors")
        for name, tensor in tensors.items():
            if which in name:
                kind = STORED[word]
                tensor = tensor if kind.is_floating_point else tensor * 20
                tensors[name] = (tensor.abs() if word == "F8_E8M0" else tensor).to(kind)
        save_file(tensors, out / "model.safetensors", {"format": "pt"})
        kept_open.append(Base.open(str(out)))
        return out

    return folder


def header(folder):
    raw = (folder / "model.safetensors").read_bytes()
    result = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {name: entry["dtype"] for name, entry in result.items() if name != "__metadata__"}


@pytest.mark.parametrize("word", STORED)
def test_whatever_dtype_is_stored_disk_and_memory_agree(mixed, tmp_path, word):
    """As it is stored, and in a dtype that is asked for, which is then that of every weight."""
    base, plan = Base.open(str(mixed(word))), Plan.parse(ALL_AT_ONCE, DEPTH)
    patient = base.operate(plan).model
    out = base.save(plan, tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert config["dtype"] == str(patient.dtype).removeprefix("torch.")
    expected, stored = patient.state_dict(), header(out)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    for position, layer in enumerate(plan.layers):
        begun = stored[f"model.layers.{position}.mlp.down_proj.weight"]
        exact = word in ("F64", "F32", "F16") or layer.init.kind == "copy"
        exact |= layer.init.kind == "identity" and word != "F8_E8M0"
        assert begun == (word if exact else "BF16")
    for dtype in ("bfloat16", "float32") if word in WIDENED else ("bfloat16",):
        out = base.save(plan, tmp_path / dtype, dtype=dtype)
        assert set(header(out).values()) == {"BF16" if dtype == "bfloat16" else "F32"}
        assert json.loads((out / "config.json").read_text())["dtype"] == dtype
        assert_values(out, expected)


def assert_values(folder, expected):
    """That a checkpoint of one dtype has these values, in that dtype."""
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name


@pytest.mark.parametrize("text", PLANS)
def test_a_few_tensors_of_a_wider_dtype_keep_it(mixed, tmp_path, text):
    """They are loaded in the model's dtype, so the mean is computed in it."""
    base, plan = Base.open(str(mixed("F32", "norm"))), Plan.parse(text, DEPTH)
    out = base.save(plan, tmp_path / "out")
    expected = base.operate(plan).model.state_dict()
    assert base.torch_dtype == torch.bfloat16
    for name, tensor in AutoModelForCausalLM.from_pretrained(out).state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    if "random" not in text:
        assert {word for name, word in header(out).items() if "norm" in name} == {"F32"}
        raw = (out / "model.safetensors").read_bytes()
        assert len(raw) - 8 - int.from_bytes(raw[:8], "little") == base.preview(plan).bytes


@pytest.mark.parametrize("own", [torch.float32, torch.bfloat16])
def test_random_layers_are_drawn_before_they_are_converted(tmp_path, own):
    tiny.model("llama", own, num_hidden_layers=DEPTH).save_pretrained(tmp_path / "base")
    base, plan = Base.open(str(tmp_path / "base")), Plan.parse("0:2, 1@random, 2:4", DEPTH)
    expected = base.operate(plan).model.state_dict()
    for dtype, word in (("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16")):
        out = base.save(plan, tmp_path / dtype, dtype=dtype)
        assert set(header(out).values()) == {word}
        assert_values(out, expected)


def test_numbers_that_a_dtype_can_not_hold_are_refused(tmp_path):
    model = tiny.model("llama", torch.bfloat16)
    model.model.layers[4].mlp.up_proj.weight.data[3, 5] = 1e6
    model.save_pretrained(tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    with pytest.raises(Refused, match="too large for float16: choose another dtype"):
        base.save(Plan.whole(6), tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()
    base.save(Plan.whole(6).drop(4, 5), tmp_path / "out", dtype="float16")
    assert set(header(tmp_path / "out").values()) == {"F16"}


def test_packed_values_are_only_copied(mixed, tmp_path, monkeypatch):
    """F4 and F6 have several values in a byte."""
    monkeypatch.setattr("surgery.checkpoint.tensors._NUMBERS", {"BF16": torch.bfloat16})
    base = Base.open(str(mixed("F16")))
    base.save(Plan.parse("0:3", DEPTH), tmp_path / "out")
    for plan, dtype in (("0:3", "float32"), ("0:3, 2@identity", None)):
        with pytest.raises(Refused, match="stored as F16, which can only be copied"):
            base.save(Plan.parse(plan, DEPTH), tmp_path / "other", dtype=dtype)


def test_a_trained_tensor_is_not_written_as_coarse_as_float8(mixed, tmp_path):
    base, plan = Base.open(str(mixed("F8_E4M3"))), Plan.parse("0:2, 3", DEPTH)
    name = "model.layers.1.mlp.up_proj.weight"
    trained = torch.randn(base.anatomy.tensors[name].shape)
    healed = TrainedTensors({name: trained}, "healed", {})
    for dtype, word in ((None, "BF16"), ("float32", "F32")):
        out = base.save(plan, tmp_path / word, healed=healed, dtype=dtype)
        result = load_file(out / "model.safetensors")[name]
        assert header(out)[name] == word and torch.equal(result, trained.to(result.dtype))


def test_the_parts_of_a_config_name_the_dtype_that_was_asked_for(tmp_path):
    tiny.model("gemma3", torch.bfloat16).save_pretrained(tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    out = base.save(Plan.whole(6), tmp_path / "out", dtype="float16")
    config = json.loads((out / "config.json").read_text())
    assert {config["dtype"], config["text_config"]["dtype"], config["vision_config"]["dtype"]} == {
        "float16"
    }
    assert set(header(out).values()) == {"F16"}


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory):
    """A function: the folder of a tiny bfloat16 model of a type."""
    from zoo import build

    @cache
    def folder(model_type):
        out = tmp_path_factory.mktemp(model_type)
        build.model(model_type).to(torch.bfloat16).save_pretrained(out)
        return out

    return folder


@pytest.mark.parametrize("model_type", ["jamba", "olmo_hybrid", "minimax", "glm4_moe", "gpt2"])
def test_the_dtypes_that_tensors_are_loaded_in(zoo_folder, model_type):
    """Some tensors of some models are float32 in any loaded dtype."""
    loaded = AutoModelForCausalLM.from_pretrained(zoo_folder(model_type), dtype=torch.bfloat16)
    expected = {name: tensor.dtype for name, tensor in loaded.state_dict().items()}
    anatomy = Anatomy.of(loaded.config)
    assert loaded_dtypes(anatomy, torch.bfloat16) == expected
    assert loaded_dtypes(anatomy, torch.float32).keys() == expected.keys()
    if model_type in ("olmo_hybrid", "glm4_moe"):
        assert torch.float32 in expected.values()
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize(
    ("model_type", "text"), [("olmo_hybrid", "0@average, 1:6"), ("glm4_moe", "0:3, 2@average, 3:6")]
)
def test_what_is_float32_in_a_bfloat16_model_begins_as_in_memory(
    zoo_folder, tmp_path, model_type, text
):
    base = Base.open(str(zoo_folder(model_type)))
    for kind in ("average", "random"):
        plan = Plan.parse(text.replace("average", kind), base.depth)
        expected = base.operate(plan).model.state_dict()
        loaded = AutoModelForCausalLM.from_pretrained(base.save(plan, tmp_path / kind))
        for name, tensor in loaded.state_dict().items():
            assert tensor.dtype == expected[name].dtype, name
            assert torch.equal(tensor, expected[name]), name
