"""Files that lie, by the thousand: each is read as what it is, or refused in a plain sentence.

`pytest --hypothesis-profile=thousands tests/unit/sources/test_fuzz.py` tries 5,000 of each kind.
"""

import copy
import itertools
import json
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes
from transformers import AutoModelForCausalLM

from surgery import Base, BaseError, Plan, SurgeryError
from surgery.analysis import Sample
from surgery.cli import main
from surgery.sources.folder import open_folder
from surgery.sources.safetensors_header import read_file

GOOD = to_bytes({"a": np.zeros((2, 3), np.float32), "b": np.ones(5, np.float16)})
NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 8, 24, 34, 2**31, 2**63, 2**64, 10**30])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BOOL", "F8_E4M3", "X9", ""]) | JSON,
        "shape": st.lists(NUMBERS, max_size=3) | JSON,
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2) | JSON,
    },
)


@st.composite
def damaged(draw) -> bytes:
    """A good file with bytes changed, taken out, put in or cut off; or a header made up."""
    if draw(st.booleans()):
        header = json.dumps(draw(st.dictionaries(st.text(max_size=5), ENTRY, max_size=3))).encode()
        length = draw(st.sampled_from([len(header), 0, 1, 2**63, 2**64 - 1, len(header) + 1]))
        return struct.pack("<Q", length) + header + bytes(draw(st.integers(0, 64)))
    raw = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        match draw(st.sampled_from(["set", "cut", "drop", "add"])):
            case "set" if raw:
                raw[at] = draw(st.integers(0, 255))
            case "cut":
                del raw[at:]
            case "drop":
                del raw[at : at + draw(st.integers(1, 9))]
            case "add":
                raw[at:at] = draw(st.binary(max_size=9))
    return bytes(raw)


@given(damaged())
def test_headers(raw):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(raw)
        try:
            result = read_file(path)
        except BaseError as error:
            assert "\n" not in str(error) and path.name in str(error)
            return
        # What is accepted is what the format's own library sees, and lies within the file.
        spans = sorted((t.start, t.end) for t in result.values())
        assert all(8 <= start <= end <= len(raw) for start, end in spans)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        try:
            with safe_open(path, framework="np") as file:
                assert set(file.keys()) == set(result)
                for name, tensor in result.items():
                    assert tuple(file.get_slice(name).get_shape()) == tensor.shape
        except SafetensorError:
            pass  # stricter than we are: loading says so


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model's folder, sharded, and its files' JSON."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    model = tiny.model("qwen3", num_hidden_layers=2, max_window_layers=1)  # one of each kind
    model.save_pretrained(folder, max_shard_size="60KB")
    config = json.loads((folder / "config.json").read_text())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return folder, config, index


FIELDS = [
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "layer_types",
    "rope_parameters",
    "sliding_window",
    "tie_word_embeddings",
    "dtype",
    "hidden_act",
    "rms_norm_eps",
    "max_position_embeddings",
    "architectures",
    "quantization_config",
]


def opened(folder, config=None, index=None):
    """What opening a copy of the folder with other JSON gives: a preview or a plain sentence."""
    with tempfile.TemporaryDirectory() as place:
        copied = Path(place) / "model"
        shutil.copytree(folder, copied, copy_function=lambda a, b: Path(b).symlink_to(a))
        for name, value in (("config.json", config), ("model.safetensors.index.json", index)):
            if value is not None:
                (copied / name).unlink()
                (copied / name).write_text(json.dumps(value))
        try:
            base = Base.open(str(copied))
            preview = base.preview(Plan.whole(base.depth))
        except SurgeryError as error:
            assert str(error) and "Traceback" not in str(error)
            return None
        stored = open_folder(copied).tensors.values()
        values = sum(int(np.prod(t.shape)) for t in stored)
        return preview.parameters, values


@given(st.dictionaries(st.sampled_from(FIELDS), NUMBERS | JSON, min_size=1, max_size=3))
def test_configs(checkpoint, changes):
    folder, config, _ = checkpoint
    if counts := opened(folder, config=config | changes):
        assert counts[0] == counts[1]  # what is accepted fits the tensors to the last one


@given(st.data())
def test_indices(checkpoint, data):
    folder, _, index = checkpoint
    changed = copy.deepcopy(index)
    names = sorted(changed["weight_map"])
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(names))
        match data.draw(st.sampled_from(["point", "drop", "new", "whole"])):
            case "point":
                files = [*set(index["weight_map"].values()), "../x.safetensors", "none.safetensors"]
                changed["weight_map"][name] = data.draw(st.sampled_from(files) | JSON)
            case "drop":
                changed["weight_map"].pop(name, None)
            case "new":
                changed["weight_map"][data.draw(st.text(max_size=9))] = index["weight_map"][name]
            case "whole":
                changed = {"weight_map": data.draw(JSON)}
                break
    if counts := opened(folder, index=changed):
        assert counts[0] == counts[1]


@pytest.mark.parametrize("other", [{"hidden_size": 0}, {"vocab_size": 3}])
def test_a_config_that_only_says_quantized_is_still_held_against_its_tensors(checkpoint, other):
    """Found by the fuzzing above."""
    folder, config, _ = checkpoint
    changes = {"quantization_config": {"": None}} | other
    assert opened(folder, config=config | changes) is None


# ---------------------------------------------------------------- every file beside the weights

JUNK = st.sampled_from(
    [None, True, False, 0, 1, -1, 3.5, 1e400, 2**63, "", "x", "</s>", "\0", "\ud800", "../x"]
) | JSON.map(lambda value: copy.deepcopy(value))
SETTINGS = {
    "config.json": ["max_position_embeddings", "rope_theta", "auto_map", "is_encoder_decoder"],
    "generation_config.json": ["eos_token_id", "pad_token_id", "max_length", "cache_config"],
    "tokenizer_config.json": ["tokenizer_class", "added_tokens_decoder", "chat_template"],
    "tokenizer.json": ["normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation"],
    "special_tokens_map.json": ["unk_token", "additional_special_tokens"],
    "model.safetensors.index.json": ["metadata", "weight_map"],
}
BYTES = [b"", b"null", b"[]", b"{}", b"\xff\xfe{}", b"[" * 9000, b'{"a":' * 5000, b"NaN"]
TEMPLATES = ["", "{{", "{% for %}", "{{ 1/0 }}", "{{ x.y }}", "{{ messages }}", "\0"]


def places(value, at=()):
    """Every path into a JSON value, except the root."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, result in inner:
        yield (*at, key)
        if isinstance(result, (dict, list)):
            yield from places(result, (*at, key))


@st.composite
def changed(draw, files: dict[str, bytes]) -> tuple[str, bytes]:
    """One of the files, changed in up to three places, cut off, or replaced."""
    name = draw(st.sampled_from(sorted(files)))
    raw = files[name]
    if not name.endswith(".json"):
        return name, draw(st.sampled_from(TEMPLATES)).encode()
    if not draw(st.integers(0, 7)):
        return name, draw(st.sampled_from([*BYTES, raw[: len(raw) // 2], b"\xef\xbb\xbf" + raw]))
    value = json.loads(raw)
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            value[draw(st.sampled_from(SETTINGS[name]))] = draw(JUNK)
            continue
        *at, last = draw(st.sampled_from([p for p in places(value) if "vocab" not in p[:-1]]))
        within = value
        for key in at:
            within = within[key]
        if draw(st.booleans()):
            within[last] = draw(JUNK)
        else:
            del within[last]
        if not value:
            break
    return name, json.dumps(value).encode()


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A tiny model's folder with every file that may lie beside one, and what is in them."""
    folder = tmp_path_factory.mktemp("files") / "model"
    tiny.model("llama", num_hidden_layers=2).save_pretrained(folder, max_shard_size="60KB")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    specials = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials))
    paths = [p for p in folder.iterdir() if p.suffix in (".json", ".jinja")]
    assert {*SETTINGS, "chat_template.jinja"} == {path.name for path in paths}
    return folder, {path.name: path.read_bytes() for path in paths}


def used(folder: Path, out: Path) -> None:
    """Everything that a user does with a base: each step gives the result of plain transformers, or
    a `SurgeryError`. Any other exception fails the test."""

    def tried(step):
        try:
            return step()
        except SurgeryError as error:
            message = str(error)
            assert len(message) > 20 and message[-1] in ".…)”" and "\n" not in message, message
            return None

    if (base := tried(lambda: Base.open(str(folder)))) is None or not tried(lambda: base.depth):
        return
    plan = Plan.whole(base.depth)
    tried(lambda: base.preview(plan))
    if (patient := tried(lambda: base.operate(plan))) is not None:
        tried(lambda: list(patient.stream("hello", max_new_tokens=2)))
        tried(lambda: list(patient.stream("hello", max_new_tokens=2, greedy=True, chat=True)))
        tried(lambda: Sample.of(base, "hello " * 20))
    if tried(lambda: base.save(plan, out)) is not None and patient is not None:
        again = AutoModelForCausalLM.from_pretrained(out, dtype=patient.model.dtype)
        ids = tiny.tokens(8)
        assert torch.equal(again(ids).logits, patient.model(ids).logits)


@settings(max_examples=settings().max_examples // 4)
@given(st.data())
def test_every_file_beside_the_weights(complete, data):
    folder, files = complete
    name, raw = data.draw(changed(files))
    with tempfile.TemporaryDirectory() as place:
        copied = Path(place) / "model"
        shutil.copytree(folder, copied, copy_function=lambda a, b: Path(b).symlink_to(a))
        (copied / name).unlink()
        (copied / name).write_bytes(raw)
        used(copied, Path(place) / "out")


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("generation_config.json", {"eos_token_id": {"a": 1}}, "generation_config.json"),
        ("generation_config.json", {"eos_token_id": ["</s>"]}, "generation_config.json"),
        ("generation_config.json", {"cache_implementation": "x"}, "generation_config.json"),
        ("tokenizer_config.json", {"model_max_length": "x"}, "tokenizer of model can't be used"),
        ("tokenizer_config.json", {"added_tokens_decoder": 3}, "tokenizer of model can't be used"),
        ("tokenizer.json", {"model": None}, "tokenizer of model can't be used"),
        ("tokenizer_config.json", {"chat_template": "{{ 1/0 }}"}, "chat template"),
        ("model.safetensors.index.json", {"metadata": [1]}, "metadata is not a JSON object"),
    ],
)
def test_the_file_that_is_broken_is_named(complete, tmp_path, capsys, name, fields, message):
    """Through the command line: one plain line."""
    folder, files = complete
    shutil.copytree(folder, tmp_path / "model")
    if "chat_template" in fields:
        (tmp_path / "model" / "chat_template.jinja").unlink()
    (tmp_path / "model" / name).write_text(json.dumps(json.loads(files[name]) | fields))
    command = ["generate", str(tmp_path / "model"), "0:2", "--prompt", "x", "--chat"]
    assert main.main([*command, "--max-new-tokens", "2", "--greedy"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and message in err and "should not" not in err and err.count("\n") == 1
