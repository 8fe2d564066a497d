"""Saved checkpoints: reloaded by plain transformers, whole or not there at all."""

import json
import re
import shutil
from functools import cache

import pytest
import tiny
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from zoo import build

from surgery import Base, BaseError, Plan, Refused, SaveError
from surgery.architecture.inspect.names import other_layers
from surgery.checkpoint.save import parse_size
from surgery.checkpoint.tensors import memory_of


def reload(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def logits(model, ids=None):
    with torch.no_grad():
        return model(input_ids=tiny.tokens() if ids is None else ids).logits


# Left out, repeated, moved, nothing of it, begun as the identity; and all of it at once.
EVERY_WAY = ["0:2, 4:6", "0:4, 2:6", "0, 3, 2, 1, 4, 5", "0:6", "0:3, 2@identity, 3:6"]
AT_ONCE = "0:3, 2@identity, 1, 4, 3"


@pytest.mark.parametrize(
    ("family", "text"),
    [
        *((family, AT_ONCE) for family in tiny.FAMILIES),
        *(("gemma3_text", text) for text in EVERY_WAY),  # whose layers are of two kinds
    ],
)
def test_a_reloaded_checkpoint_is_the_patient(tiny_folder, tmp_path, family, text):
    base = Base.open(str(tiny_folder(family)))
    plan = Plan.parse(text, base.depth)
    out = base.save(plan, tmp_path / "out")
    model, patient = reload(out), base.operate(plan).model
    assert isinstance(patient, type(model))
    assert torch.equal(logits(model), logits(patient))
    ids = tiny.tokens(8)  # as long as a sliding window
    settings = dict(max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert torch.equal(model.generate(ids, **settings), patient.generate(ids, **settings))
    preview = base.preview(plan)
    assert sum(p.numel() for p in model.parameters()) == preview.parameters
    assert stored_bytes(out) == preview.bytes


def stored_bytes(folder):
    total = 0
    for path in folder.glob("*.safetensors"):
        raw = path.read_bytes()
        header = int.from_bytes(raw[:8], "little")
        total += len(raw) - 8 - header
    return total


def test_a_sharded_base_and_a_sharded_result(tiny_folder, tmp_path):
    base = Base.open(str(tiny_folder("llama", max_shard_size="100KB")))
    plan = Plan.parse("0:4, 2:6", base.depth)
    out = base.save(plan, tmp_path / "out", shard_size="120KB")
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) > 2 and (out / "model.safetensors.index.json").is_file()
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == stored_bytes(out)
    assert torch.equal(logits(reload(out)), logits(base.operate(plan).model))


def test_unchanged_tensors_are_the_same_bytes(tiny_folder, tmp_path):
    folder = tiny_folder("qwen3")
    base = Base.open(str(folder))
    out = base.save(Plan.parse("0:2, 4:6", base.depth), tmp_path / "out")
    with (
        safe_open(folder / "model.safetensors", "pt") as old,
        safe_open(out / "model.safetensors", "pt") as new,
    ):
        for name in new.keys():  # noqa: SIM118
            source = re.sub(r"layers\.(\d)", lambda m: f"layers.{[0, 1, 4, 5][int(m[1])]}", name)
            assert torch.equal(new.get_tensor(name), old.get_tensor(source))


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("gpt2", "bfloat16"), ("mixtral", None), ("gemma3", "bfloat16")],
)
def test_a_preview_counts_what_is_written_whatever_its_form(tiny_folder, tmp_path, family, dtype):
    base = Base.open(str(tiny_folder(family, max_shard_size="100KB")))
    plan = Plan.parse("0:4, 2:6", base.depth)
    preview = base.preview(plan)
    out = base.save(plan, tmp_path / "out", dtype=dtype, shard_size="50KB")
    assert len(list(out.glob("*.safetensors"))) > 2
    assert stored_bytes(out) == preview.bytes // (2 if dtype else 1)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) == preview.parameters
    again = Base.open(str(out))
    whole = again.preview(Plan.whole(8))
    assert (whole.parameters, whole.bytes) == (preview.parameters, stored_bytes(out))
    assert whole.by_component == preview.by_component


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory):
    """A function: the folder of a tiny model of a type, which nobody changes."""

    @cache
    def folder(model_type):
        out = tmp_path_factory.mktemp(model_type)
        build.model(model_type).save_pretrained(out)
        return out

    return folder


@pytest.mark.parametrize(
    ("model_type", "texts"),
    [
        ("gemma3n_text", ["0:4"]),  # tables with a part for each layer, outside the layers
        ("gemma4_text", ["0:2, 4:6"]),
        # A block that layers 1, 3 and 5 share is stored in layer 1.
        ("zamba", ["0:6, 5", "0, 2:6, 3", "0:3, 1"]),
    ],
)
def test_a_preview_counts_what_lies_outside_a_layer(zoo_folder, tmp_path, model_type, texts):
    base = Base.open(str(zoo_folder(model_type)))
    for plan in (*(Plan.parse(text, base.depth) for text in texts), Plan.whole(base.depth)):
        out, preview = base.save(plan, tmp_path / "out", overwrite=True), base.preview(plan)
        assert stored_bytes(out) == preview.bytes
        assert preview.active_parameters == preview.parameters  # there are no experts


def test_a_preview_counts_a_shared_block_that_each_layer_stores(zoo_folder, tmp_path):
    """As files by older versions of transformers do."""
    home = shutil.copytree(zoo_folder("zamba"), tmp_path / "base")
    anatomy, path = Base.open(str(home)).anatomy, home / "model.safetensors"
    stored = load_file(path)
    for name, tensor in list(stored.items()):
        for layer in other_layers(anatomy, name):
            own = anatomy.layer_of(name)[1]
            stored[name.replace(f"layers.{own}.", f"layers.{layer}.", 1)] = tensor.clone()
    assert len(stored) > len(load_file(path))
    save_file(stored, path, {"format": "pt"})
    base = Base.open(str(home))
    for text in ("0, 2:6", "0:6"):
        plan = Plan.parse(text, base.depth)
        out = base.save(plan, tmp_path / "out", overwrite=True)
        assert stored_bytes(out) == base.preview(plan).bytes


def test_conversion_of_the_dtype(tiny_folder, tmp_path):
    base = Base.open(str(tiny_folder("gemma2")))
    plan = Plan.parse("0:4, 2@identity, 5", base.depth)
    expected = base.operate(plan).model.state_dict()
    for dtype in ("float32", "float16", "bfloat16"):
        out = base.save(plan, tmp_path / dtype, dtype=dtype)
        model = AutoModelForCausalLM.from_pretrained(out)
        assert model.dtype is getattr(torch, dtype)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, expected[name].to(model.dtype))


def test_what_stands_beside_the_weights(tiny_folder, tmp_path):
    base = Base.open(str(tiny_folder("llama")))
    out = base.save(Plan.parse("0:4, 2:6", 6), tmp_path / "my-model")
    assert (
        AutoTokenizer.from_pretrained(out)("abc")["input_ids"] == base.tokenizer("abc")["input_ids"]
    )
    assert (out / "generation_config.json").is_file()
    config = json.loads((out / "config.json").read_text())
    assert config["num_hidden_layers"] == 8 and config["architectures"] == ["LlamaForCausalLM"]
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["merge_method"] == "passthrough"
    assert [s["sources"][0]["layer_range"] for s in recipe["slices"]] == [[0, 4], [2, 6]]
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert "vllm serve" in card and "convert_hf_to_gguf.py" in card and "verify OUT BASE" in card
    assert "# my-model" in card and "0:4, 2:6" in card and "2 repeated" in card
    assert f"{base.preview(Plan.parse('0:4, 2:6', 6)).parameters:,}" in card


def test_a_config_base_is_saved_with_its_random_weights(tmp_path):
    tiny.config("mixtral").save_pretrained(tmp_path / "c")
    base = Base.open(f"config:{tmp_path / 'c' / 'config.json'}")
    plan = Plan.parse("0:2, 4:6", base.depth)
    out = base.save(plan, tmp_path / "out")
    assert torch.equal(logits(reload(out)), logits(base.operate(plan).model))


def test_an_existing_output_is_not_overwritten_without_being_asked(tiny_folder, tmp_path):
    base = Base.open(str(tiny_folder("llama")))
    out = tmp_path / "out"
    base.save(Plan.parse("0:2", 6), out)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(SaveError, match="exists already"):
        base.save(Plan.parse("0:3", 6), out)
    with pytest.raises(SaveError, match=r"holds mine\.txt"):
        base.save(Plan.parse("0:3", 6), out, overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    (out / "mine.txt").unlink()
    base.save(Plan.parse("0:3", 6), out, overwrite=True)
    assert reload(out).config.num_hidden_layers == 3
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaveError, match="file, not a folder"):
        base.save(Plan.parse("0:3", 6), tmp_path / "file", overwrite=True)


def test_a_config_that_lies_is_found_out_without_reading_weights(tiny_folder, tmp_path):
    for field, value, message in (
        ("num_hidden_layers", 4, "the config says 4 layers"),
        ("num_hidden_layers", 8, "no tensor for"),
        ("intermediate_size", 90, "is stored as"),
    ):
        folder = tmp_path / f"{field}-{value}"
        shutil.copytree(tiny_folder("llama"), folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, field: value}))
        base = Base.open(str(folder))
        with pytest.raises(ValueError, match=message):
            base.preview(Plan.whole(base.depth))
        with pytest.raises(ValueError):
            base.save(Plan.whole(base.depth), tmp_path / "out")
        with pytest.raises(ValueError, match=message):
            base.load()


@pytest.mark.parametrize("same", [True, False])
def test_what_is_tied_and_stored_twice_has_to_be_the_same_twice(tiny_folder, tmp_path, same):
    """transformers keeps both where they differ, and every count would be of one; by fuzzing."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder("qwen3"), folder)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + (not same)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    base = Base.open(str(folder))
    plan = Plan.whole(base.depth).drop(1, 3)
    out = tmp_path / "out"
    if same:
        count = base.preview(plan).parameters
        base.save(plan, out)
        loaded = AutoModelForCausalLM.from_pretrained(out)
        assert count == sum(p.numel() for p in loaded.parameters())
        return
    for work in (base.preview, base.operate, lambda plan: base.save(plan, out)):
        with pytest.raises(BaseError, match="tied by the config and differ"):
            work(plan)
    assert not out.exists()


@pytest.mark.parametrize(
    ("family", "extra", "owner"),
    [
        ("llama", "model.layers.2.self_attn.q_proj.bias", "q_proj"),
        ("llama", "model.layers.2.self_attn.q_norm.weight", "q_norm"),
        ("gpt2", "transformer.h.2.attn.bias", None),  # a mask, as the first checkpoints have it
        ("gpt2", "transformer.extra.weight", None),  # a part that this model never had
    ],
)
def test_a_layer_that_would_run_without_what_it_was_trained_with(
    tiny_folder, tmp_path, family, extra, owner
):
    """transformers says “unexpected key” and goes on; the model would be another one."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder(family), folder)
    tensors = load_file(folder / "model.safetensors") | {extra: torch.ones(64)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    base = Base.open(str(folder))
    if owner is None:
        base.save(Plan.whole(base.depth).drop(1, 3), tmp_path / "out")
        return
    for work in (base.preview, base.operate, lambda plan: base.save(plan, tmp_path / "out")):
        with pytest.raises(BaseError, match=f"{owner}.* would run\\s+without it"):
            work(Plan.whole(base.depth))
    assert not (tmp_path / "out").exists()


MASK = torch.tril(torch.ones(1, 1, 32, 32))
OLD_BUFFERS = {
    "gpt2": {"attn.bias": MASK, "attn.masked_bias": torch.tensor(-1e4)},
    "gpt_neo": {"attn.attention.bias": MASK, "attn.attention.masked_bias": torch.tensor(-1e9)},
    "gpt_bigcode": {"attn.bias": MASK.bool()[0, 0]},
    "codegen": {"attn.causal_mask": MASK.to(torch.uint8)},
    "llama": {"self_attn.rotary_emb.inv_freq": torch.ones(8)},
}


@pytest.mark.parametrize("model_type", OLD_BUFFERS)
@torch.no_grad()
def test_buffers_of_old_checkpoints_are_passed_over(tmp_path, model_type):
    """Buffers such as masks, stored by older models and now computed by transformers."""
    build.model(model_type).save_pretrained(tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    clean = Base.open(str(tmp_path / "base"))
    plan = Plan.parse("0:2, 4:6, 4, 5*3", 6)
    ids = build.tokens()
    expected = clean.operate(plan).model(input_ids=ids, use_cache=False).logits
    layers = "model.layers" if model_type == "llama" else "transformer.h"
    buffers = {
        f"{layers}.{i}.{name}": tensor.clone()
        for i in range(6)
        for name, tensor in OLD_BUFFERS[model_type].items()
    }
    save_file(load_file(path) | buffers, path, {"format": "pt"})
    base = Base.open(str(tmp_path / "base"))
    assert base is not clean
    patient = base.operate(plan).model
    assert torch.equal(patient(input_ids=ids, use_cache=False).logits, expected)
    out = base.save(plan, tmp_path / "out")
    assert stored_bytes(out) == base.preview(plan).bytes
    again = AutoModelForCausalLM.from_pretrained(out).eval()
    assert torch.equal(again(input_ids=ids, use_cache=False).logits, expected)
    reopened = Base.open(str(out))
    assert torch.equal(reopened.model(input_ids=ids, use_cache=False).logits, expected)
    assert not memory_of(base, plan, base.source.tensors).keys() & buffers.keys()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("self_attn.sinks", (4,)),
        ("self_attn.bias", (64,)),
        ("mlp.gate.e_score_correction_bias", (4,)),
    ],
)
def test_what_was_trained_is_no_old_buffer(tiny_folder, tmp_path, name, shape):
    shutil.copytree(tiny_folder("llama"), tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    extra = {f"model.layers.2.{name}": torch.ones(shape)}
    save_file(load_file(path) | extra, path, {"format": "pt"})
    base = Base.open(str(tmp_path / "base"))
    with pytest.raises(BaseError, match="no place for"):
        base.operate(Plan.whole(6))
    with pytest.raises(SaveError, match="no place in the model"):
        base.save(Plan.whole(6), tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("1.5K", 1500), (42, 42)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1e3GB", "5 PB", "9" * 400, "٣GB", "²"])
def test_sizes_that_are_none(text):
    with pytest.raises(SaveError, match="shard size"):
        parse_size(text)


def test_quantized_tensors_are_not_computed_with(tmp_path):
    from zoo import quantized

    quantized.make(quantized.FORMATS["gptq, llama"], tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    with pytest.raises(Refused, match="quantized"):
        base.operate(Plan.parse("0:2, 4:6", 6))
    for plan, dtype in (("0:6@identity", None), ("0:2, 4:6", "float16")):
        with pytest.raises(Refused, match="quantized"):
            base.save(Plan.parse(plan, 6), tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out").exists()
