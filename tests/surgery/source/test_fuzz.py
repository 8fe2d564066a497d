"""Files that lie, by the thousand: each is read as what it is, or refused in a plain sentence.

`pytest --hypothesis-profile=thousands tests/surgery/source/test_fuzz.py` tries 5,000 of each kind.
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
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from surgery import Base, BaseError, Plan, SurgeryError
from surgery.source.folder import open_folder
from surgery.source.headers import read_file

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
            found = read_file(path)
        except BaseError as error:
            assert "\n" not in str(error) and path.name in str(error)
            return
        # What is accepted is what the format's own library sees, and lies within the file.
        spans = sorted((t.start, t.end) for t in found.values())
        assert all(8 <= start <= end <= len(raw) for start, end in spans)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        try:
            with safe_open(path, framework="np") as file:
                assert set(file.keys()) == set(found)
                for name, tensor in found.items():
                    assert tuple(file.get_slice(name).get_shape()) == tensor.shape
        except SafetensorError:
            pass  # stricter than we are: loading says so


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model's folder, sharded, and its files' JSON."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    tiny.model("qwen3").save_pretrained(folder, max_shard_size="60KB")
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
