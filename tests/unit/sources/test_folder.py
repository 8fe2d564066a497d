"""Folders and headers: what is whole opens, what is broken is named."""

import json
import os
import shutil
import struct
from dataclasses import replace

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM
from transformers.distributed.checkpoint import is_sharded_checkpoint

from surgery import Base, BaseError, Plan
from surgery.sources import folder as folder_module
from surgery.sources import kind_of, open_source
from surgery.sources.folder import check_counts
from surgery.sources.safetensors_header import LONGEST, read_header


@pytest.fixture
def folder(tiny_folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_folder("llama"), copy)
    return copy


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_folder(folder):
    source = open_source(str(folder))
    assert (source.kind, source.name) == ("folder", "model")
    assert source.fetch() == folder and source.tokenizer_folder() == folder
    tensor = source.tensors["model.embed_tokens.weight"]
    assert (tensor.dtype, tensor.shape) == ("F32", (tiny.VOCAB, 64))
    assert tensor.end - tensor.start == 4 * tiny.VOCAB * 64
    assert source.identity == open_source(f"{folder}/").identity


def test_headers_agree_with_the_format_s_own_library(folder):
    from safetensors import safe_open

    source = open_source(str(folder))
    raw = (folder / "model.safetensors").read_bytes()
    with safe_open(folder / "model.safetensors", "np") as file:
        assert set(file.keys()) == set(source.tensors)
        for name, tensor in source.tensors.items():
            assert raw[tensor.start : tensor.end] == file.get_tensor(name).tobytes()


def test_shards(tiny_folder):
    whole = open_source(str(tiny_folder("llama")))
    sharded = open_source(str(tiny_folder("llama", max_shard_size="100KB")))
    assert {n: t.shape for n, t in whole.tensors.items()} == {
        n: t.shape for n, t in sharded.tensors.items()
    }
    assert len({t.file for t in sharded.tensors.values()}) > 1


def test_opening_reads_no_weights(folder):
    """The weights may be nonsense, or not be there at all behind their header."""
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(raw[:8], "little")
    raw[begin:] = b"\xff" * (len(raw) - begin)
    path.write_bytes(raw)
    assert Base.open(str(folder)).depth == tiny.DEPTH


def test_a_changed_folder_is_another_base(folder):
    first = Base.open(str(folder))
    assert Base.open(str(folder)) is first
    tiny.model("llama", intermediate_size=80).save_pretrained(folder)
    assert Base.open(str(folder)) is not first


def test_a_changed_index_of_shards_is_noticed(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder("llama", max_shard_size="100KB"), folder)
    base = Base.open(str(folder))
    assert Base.open(str(folder)) is base
    os.utime(folder / "model.safetensors.index.json", (1, 1))
    with pytest.raises(BaseError, match="changed since they were opened"):
        base.source.check()
    again = Base.open(str(folder))
    assert again is not base
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(BaseError, match=r"index\.json is gone from"):
        again.source.check()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_change_while_a_folder_is_opened_is_noticed(folder, monkeypatch, file):
    """Of what was read before it: neither is then used with the other's numbers."""
    reader = "read_json" if file == "config.json" else "read_file"

    read = getattr(folder_module, reader)

    def changed(path):
        result = read(path)
        os.utime(folder / file, (1, 1))
        return result

    monkeypatch.setattr(folder_module, reader, changed)
    source = open_source(str(folder))
    with pytest.raises(BaseError, match="changed since they were opened"):
        source.check()


def test_a_model_in_the_hub_s_cache_whose_files_changed_is_another_base(folder, monkeypatch):
    """Though its commit is the same, by which it is known."""

    def cached(spec, progress):
        return replace(open_source(spec), kind="hub", identity="hub:org/name@0")

    monkeypatch.setattr("surgery.base.open_source", cached)
    first = Base.open(str(folder))
    assert Base.open(str(folder)) is first
    change(folder)
    os.utime(folder / "config.json", (1, 1))
    with pytest.raises(BaseError, match="open it again"):
        first.load()
    again = Base.open(str(folder))
    assert again is not first and again.load()
    assert Base.open(str(folder)) is again


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("bundled", "bundled"),
        ("org/name", "hub"),
        ("gpt2", "hub"),
        ("org/na.me-1_b@v1.0", "hub"),
        ("org/name@refs/pr/3", "hub"),
        ("/no/such/folder", "folder"),
        ("./here", "folder"),
        ("~/models", "folder"),
        ("a/b/c/", "folder"),
        ("/x/Model.GGUF", "gguf"),
        ("config:x.json", "config"),
    ],
)
def test_kinds(spec, kind):
    assert kind_of(spec) == kind


@pytest.mark.parametrize(
    "spec", ["", "  ", "a b", "org/name/more", "a\0b", "x" * 5000, "<script>", "a/../b", "a--b/c"]
)
def test_specs_that_are_none(spec):
    with pytest.raises(BaseError):
        open_source(spec)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(BaseError, match="no folder"):
        open_source(f"{tmp_path}/nothing")
    with pytest.raises(BaseError, match=r"no config\.json"):
        open_source(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseError, match="LoRA adapter"):
        open_source(str(tmp_path))


def test_an_adapter_beside_a_model_is_not_passed_over(folder, tmp_path):
    """Plain transformers applies it when it loads the folder, which changes the base."""
    from peft import LoraConfig, get_peft_model

    base = Base.open(str(folder))
    adapted = get_peft_model(tiny.model("llama"), LoraConfig(target_modules=["q_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    adapted.save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert any("lora" in name for name, _ in loaded.named_parameters())
    with pytest.raises(BaseError, match=r"adapter beside its model.*FOLDER\+ADAPTER opens"):
        open_source(str(folder))
    for work in (base.load, lambda: base.save(Plan.whole(6), tmp_path / "out")):
        with pytest.raises(BaseError, match="adapter beside its model"):
            work()  # it was added after the base was opened
    assert not (tmp_path / "out").exists()
    (folder / "adapter_config.json").unlink()
    out = Base.open(str(folder)).save(Plan.whole(6), tmp_path / "out")
    assert not list(out.glob("adapter*"))


def test_a_file_of_weights_that_the_config_names_is_not_passed_over(folder, tmp_path):
    """transformers loads that one, and none other."""
    other = tiny.model("llama")
    torch.nn.init.zeros_(other.model.norm.weight)
    other.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other/model.safetensors", folder / "other.safetensors")
    change(folder, transformers_weights="other.safetensors")
    assert not AutoModelForCausalLM.from_pretrained(folder).model.norm.weight.any()
    with pytest.raises(BaseError, match=r"model has its weights in “other\.safetensors”"):
        open_source(str(folder))


def test_a_config_may_name_the_file_that_is_read(folder, tmp_path):
    change(folder, transformers_weights="model.safetensors")
    out = Base.open(str(folder)).save(Plan.whole(6), tmp_path / "out", shard_size="100KB")
    assert "transformers_weights" not in json.loads((out / "config.json").read_text())
    Base.open(str(out)).load()
    change(out, transformers_weights="model.safetensors.index.json")
    assert Base.open(str(out)).depth == 6


def test_a_distributed_checkpoint_is_not_passed_over(folder):
    """transformers loads it, whatever else is there."""
    base = Base.open(str(folder))
    name = "shard-00001-model-00001-of-00002.safetensors"
    shutil.copy(folder / "model.safetensors", folder / name)
    assert is_sharded_checkpoint(folder)
    with pytest.raises(BaseError, match="model has a distributed checkpoint"):
        open_source(str(folder))
    with pytest.raises(BaseError, match="model has a distributed checkpoint"):
        base.load()  # it was added after the base was opened


def test_a_single_file_that_comes_beside_shards_is_noticed(folder, tmp_path):
    """transformers would load it in place of the shards."""
    out = Base.open(str(folder)).save(Plan.whole(6), tmp_path / "out", shard_size="100KB")
    base = Base.open(str(out))
    shutil.copy(folder / "model.safetensors", out)
    with pytest.raises(BaseError, match="changed since they were opened"):
        base.load()


def test_an_adapter_beside_a_gguf_file_is_not_passed_over(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF and more")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseError, match=r"beside model\.gguf .*separate folder"):
        open_source(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "no_such_type"}, "no_such_type.*update transformers"),
        ({"model_type": None}, "has no model_type"),
        ({"model_type": ["llama"]}, "model_type"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "configuration.Mine"}},
            "code of its own",
        ),
        ({"num_attention_heads": "many"}, "not a config that transformers can read"),
        ({"rope_parameters": 3}, "not a config that transformers can read"),
        ({"num_labels": 10**12}, "num_labels over 1,000,000, which no model has"),
        ({"model_type": "qwen2", "num_hidden_layers": 10**9}, "num_hidden_layers over"),
        ({"text_config": {"some_layers": 1e300}}, "some_layers over"),
    ],
)
def test_configs_that_do_not_hold(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(BaseError, match=message):
        open_source(str(folder))


def test_counts_are_found_at_any_depth(folder):
    """The parser takes deeper nesting than Python's own stack from version 3.12 on."""
    inner = {"num_labels": 10**12}
    for _ in range(5000):
        inner = {"in": [inner]}
    with pytest.raises(BaseError, match="config says num_labels over 1,000,000"):
        check_counts(inner, "The config says")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", '{"a": ' * 100_000])
def test_configs_that_are_no_json(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(BaseError, match=r"config\.json is broken"):
        open_source(str(folder))


def test_remote_code_is_never_run(folder, tmp_path):
    """A known type that brings code along is opened with transformers' own class."""
    mark = tmp_path / "ran"
    (folder / "modeling.py").write_text(f"open({str(mark)!r}, 'w')")
    change(folder, auto_map={"AutoModelForCausalLM": "modeling.Mine", "AutoConfig": "modeling.C"})
    base = Base.open(str(folder))
    base.load()
    assert not mark.exists() and type(base.model).__module__.startswith("transformers.")
    out = base.save(Plan.parse("0:2", 6), tmp_path / "out")
    assert not (out / "modeling.py").exists()
    assert "auto_map" not in json.loads((out / "config.json").read_text())
    AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert not mark.exists()


def test_pickles_are_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseError, match="pickles only"):
        open_source(str(folder))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(BaseError, match="no weights"):
        open_source(str(folder))


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/passwd", "a\\b.safetensors", "model.bin", "sub/x"]
)
def test_an_index_that_leaves_the_folder(folder, file):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"x": file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BaseError, match="not a safetensors file"):
        open_source(str(folder))


def test_an_incomplete_or_lying_index(tiny_folder, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_folder("llama", max_shard_size="100KB"), folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.norm.weight.extra"] = index["weight_map"]["model.norm.weight"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BaseError, match="the index says"):
        open_source(str(folder))
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(BaseError, match="not complete"):
        open_source(str(folder))


def header(fields, body=b"", length=None):
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1234567",
        header(GOOD),  # no body
        header(GOOD, b"x" * 7),
        header(GOOD, b"x" * 9),
        header(GOOD, b"x" * 8, length=2**63),
        header(GOOD, b"x" * 8, length=10**6),
        header(b"[" * 100_000, b""),
        header(b"\xff\xfe{}", b""),
        header([1, 2], b""),
        header({"a": 3}, b""),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"x" * 4),
        header({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"x" * 8),
        header({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"x" * 4),
        header({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, b"x" * 8),
        header({"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}, b"x" * 8),
        header({"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}, b"x" * 8),
        header({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, b"x" * 8),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"x" * 8),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"x" * 12),
        header({**GOOD, "b": GOOD["a"]}, b"x" * 8),
        header({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, b"x" * 8),
        header(
            {"a": {"dtype": "F32", "shape": [10**4000] * 500, "data_offsets": [0, 8]}}, b"x" * 8
        ),
        header({}, b""),
        header({"__metadata__": {"format": "pt"}}, b""),
        header({**GOOD, "__metadata__": 3}, b"x" * 8),
        header({**GOOD, "__metadata__": {"format": {}}}, b"x" * 8),
        header({"\ud800": GOOD["a"]}, b"x" * 8),
        header(GOOD, b"x" * 10**6, length=LONGEST + 1),
    ],
)
def test_broken_headers(raw, tmp_path):
    with pytest.raises(BaseError, match="broken"):
        read_header(lambda start, end: raw[start:end], len(raw), "model.safetensors")


def test_a_good_header():
    raw = header({**GOOD, "__metadata__": {"format": "pt"}}, b"x" * 8)
    (tensor,) = read_header(lambda s, e: raw[s:e], len(raw), "m").values()
    assert (tensor.start, tensor.end) == (len(raw) - 8, len(raw))


def test_a_bare_config(tmp_path):
    tiny.config("qwen3").save_pretrained(tmp_path / "mine")
    base = Base.open(f"config:{tmp_path}/mine/config.json")
    assert (base.kind, base.name, base.depth) == ("config", "mine", tiny.DEPTH)
    assert not base.has_tokenizer and not base.is_loaded
    assert Base.open(f"config:{tmp_path}/mine") is base
    with pytest.raises(BaseError, match="no file"):
        open_source(f"config:{tmp_path}/none.json")


@pytest.mark.parametrize("depth", [0, -1, 10**9])
def test_a_config_of_absurd_depth(tmp_path, depth):
    tiny.config("llama").save_pretrained(tmp_path)
    change(tmp_path, num_hidden_layers=depth)
    with pytest.raises(ValueError, match="layer"):
        _ = Base.open(f"config:{tmp_path}/config.json").depth


def test_the_licence_comes_from_the_card(folder):
    assert open_source(str(folder)).licence is None
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# x\n")
    assert open_source(str(folder)).licence == "mit"
    (folder / "README.md").write_text("---\n: [broken\n---\n")
    assert open_source(str(folder)).licence is None


def test_places_that_are_no_files(tmp_path):
    """What never ends or never says anything must not be read."""
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "loop").symlink_to("loop")
    for spec in ("/dev/zero", f"{tmp_path}/pipe.gguf"):
        with pytest.raises(BaseError, match="is not a file"):
            open_source(f"config:{spec}" if spec == "/dev/zero" else spec)
    for spec in (f"{tmp_path}/loop", f"config:{tmp_path}/loop", "~no_such_user/x", "/\ud800"):
        with pytest.raises(BaseError, match=r"not a path on this machine|no folder"):
            open_source(spec)
    with pytest.raises(BaseError, match="File name too long"):
        open_source("/" + "x" * 300)


def test_a_folder_without_permission(folder, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.is_file", refuse)
    with pytest.raises(BaseError, match=r"config\.json can't be read: Permission denied"):
        open_source(str(folder))


def test_switches_of_a_run_are_not_the_model_s(folder, tmp_path):
    """A config may carry them; streams and saved checkpoints would trip over them."""
    change(folder, return_dict=False, output_attentions=True, output_hidden_states=True)
    base = Base.open(str(folder))
    plan = Plan.parse("0:2", 6)
    stream = base.operate(plan).stream("a", max_new_tokens=2, greedy=True)
    list(stream)
    assert stream.stats.finished in ("length", "end")
    assert Base.open(str(base.save(plan, tmp_path / "out"))).depth == 2
