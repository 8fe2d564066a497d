"""From a GGUF file to another: tensors byte for byte, metadata rewritten, or a refusal."""

import subprocess
import sys

import gguf
import numpy as np
import pytest
import tiny
import tiny_gguf
import torch
from gguf import GGMLQuantizationType as Type

from surgery import Base, BaseError, Cancelled, Plan, Refused, SaveError
from surgery.gguf import open_gguf_file, save_gguf, verify_gguf
from surgery.progress import silent


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    return tiny_gguf.write(tmp_path / "base.gguf")


def save(path, plan, out="out.gguf", **options):
    base = open_gguf_file(path)
    parsed = Plan.parse(plan, base.depth)
    return save_gguf(base, parsed, path.with_name(out), **options).files[0]


def test_each_tensor_has_the_bytes_of_its_source(file):
    sources = [5, 0, 2, 2, 1]
    out = save(file, "5, 0, 2*2, 1")
    before, after = tiny_gguf.tensors(file), tiny_gguf.tensors(out)
    outer = {name: value for name, value in before.items() if not name.startswith("blk.")}
    wanted = dict(outer)
    for position, source in enumerate(sources):
        wanted |= {
            f"blk.{position}.{name.split('.', 2)[2]}": value
            for name, value in before.items()
            if name.startswith(f"blk.{source}.")
        }
    assert after == wanted and len(outer) == 3
    assert verify_gguf(out, None, silent)[0] == len(wanted)


def test_metadata_is_rewritten_where_the_plan_changes_it(file):
    before, after = tiny_gguf.metadata(file), tiny_gguf.metadata(save(file, "0:4, 2:6"))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {
        "general.size_label",
        "general.uuid",
        "layer_surgery.base",
        "layer_surgery.plan",
        "layer_surgery.version",
        "llama.block_count",
    }
    assert after["llama.block_count"] == 8 and "general.uuid" not in after
    assert after["general.size_label"] == "263K"
    assert after["layer_surgery.plan"] == "0:4, 2:6"


def test_the_patient_of_the_file_is_the_operated_base_to_the_last_bit(file):
    plan = Plan.parse("0:3, 1:3, 5@identity, 4@scale=0.5, 5", 6)
    out = save(file, str(plan))
    base = Base.open(str(file))
    ids = tiny.tokens()
    with torch.no_grad():
        one = base.operate(plan).model(input_ids=ids).logits
        other = Base.open(str(out)).model(input_ids=ids).logits
    assert torch.equal(one, other)
    assert not torch.equal(one, base.model(input_ids=ids).logits)


def test_neither_torch_nor_transformers_is_imported(file):
    code = (
        "import sys; from surgery.cli.main import main\n"
        f"assert not main(['save', {str(file)!r}, '0:4', {str(file.with_name('o.gguf'))!r}])\n"
        f"assert not main(['verify', {str(file.with_name('o.gguf'))!r}])\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done


# ------------------------------------------------------------------ metadata of layers


def test_arrays_with_a_value_for_each_layer_move_with_the_layers(tmp_path):
    extra = {
        "llama.feed_forward_length": [96, 97, 98, 99, 100, 101],
        "llama.attention.sliding_window_pattern": [True, False, True, False, True, False],
        "llama.rope.dimension_sections": [1, 2, 3, 4],
        "llama.unheard_of": [7, 8],
    }
    file = tiny_gguf.write(tmp_path / "base.gguf", extra=extra)
    after = tiny_gguf.metadata(save(file, "0, 5, 5, 2"))
    assert after["llama.feed_forward_length"] == [96, 101, 101, 98]
    assert after["llama.attention.sliding_window_pattern"] == [True, False, False, True]
    assert after["llama.rope.dimension_sections"] == [1, 2, 3, 4]  # four layers, and none of theirs
    assert after["llama.unheard_of"] == [7, 8]


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ({"llama.unheard_of": [1] * 6}, Refused, "unheard_of .* as many as there are layers"),
        ({"llama.unheard_of": ["blk.1.x"]}, Refused, "names tensors of layers"),
        ({"llama.feed_forward_length": [96] * 5}, BaseError, "6 layers and 5 values"),
        ({"llama.feed_forward_length": ["96"] * 6}, BaseError, "6 layers and 6 values"),
        ({"llama.nextn_predict_layers": 1}, Refused, "nextn_predict_layers, which may go by"),
        ({"llama.interleave_moe_layer_step": 2}, Refused, "may go by the numbers"),
        ({"llama.attention.sliding_window_pattern": 2}, Refused, "may go by the numbers"),
        ({"llama.unheard_of_layers": [3]}, Refused, "may go by the numbers"),
        ({"llama.attention.head_count": [4, 4, 4, 4, 4, 2]}, Refused, "4. Keep a layer with as"),
        ({"general.type": "adapter"}, Refused, "no language model but “adapter”"),
    ],
)
def test_metadata_that_may_go_by_the_layers_is_refused(tmp_path, extra, error, message):
    file = tiny_gguf.write(tmp_path / "base.gguf", extra=extra)
    with pytest.raises(error, match=message):
        save(file, "5, 0:5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.gguf"]


def test_a_zero_among_them_says_nothing(tmp_path):
    extra = {"llama.nextn_predict_layers": 0, "llama.n_deepstack_layers": 0}
    file = tiny_gguf.write(tmp_path / "base.gguf", extra=extra)
    assert tiny_gguf.metadata(save(file, "0:4"))["llama.nextn_predict_layers"] == 0


WINDOW = {"attention.sliding_window": 8}
ODD = {"attention.sliding_window_pattern": [True, True, False, False, True, True]}
EVEN = {"attention.sliding_window_pattern": [True, False] * 3}
LINEAR = {"full_attention_interval": 2}


@pytest.mark.parametrize(
    ("architecture", "extra", "plan", "refused"),
    [
        ("gemma2", WINDOW, "0:2, 4:6", None),
        ("gemma2", WINDOW, "0:2, 2, 5, 4, 3", None),  # layers of one kind exchanged
        ("gemma2", WINDOW, "0:3, 4:6", "Layer 4 has sliding-window attention and would become"),
        ("gemma2", WINDOW, "0:6, 5", "Layer 5 has full attention and would become layer 6"),
        ("gemma2", WINDOW, "0:6", None),
        ("gemma2", ODD, "0:3, 4:6", None),  # in an array, it moves with the layers
        ("gemma2", EVEN, "0:3, 4:6", "every 2nd layer"),  # which older versions don't read
        ("gemma3", WINDOW, "0:5, 4, 5", "every 6th layer"),
        ("gemma3", WINDOW, "0:5", None),
        ("gemma3", {}, "0:3, 5", None),  # without a window all are alike
        ("olmo2", {}, "5, 0:5", None),
        ("olmo2", WINDOW, "5, 0:5", "every 4th layer"),
        ("cohere2", WINDOW, "1:6", "Layer 3 has full attention"),
        ("smollm3", {}, "0:2, 3:6", "attention without positions"),
        ("smollm3", {}, "4, 1, 2, 3, 0, 5", None),
        ("qwen35", LINEAR, "0:2, 4:6", None),
        ("qwen35", LINEAR, "0:2, 3:6", "Layer 3 has full attention"),
        ("qwen35", LINEAR, "0", "at least one of each"),
        ("lfm2", {"attention.head_count_kv": [0, 2, 0, 2, 0, 2]}, "0, 1, 4", None),
        ("lfm2", {"attention.head_count_kv": [0, 2, 0, 2, 0, 2]}, "0, 2, 4", "one of each"),
        ("deepseek", {"leading_dense_block_count": 1}, "0:2, 4:6", None),
        ("deepseek", {"leading_dense_block_count": 1}, "0:2, 0", "dense layers come first"),
        ("gemma4", {}, "0:4", "gemma4: whether llama.cpp goes by the numbers"),
        ("t5", {}, "0:4", "Operate on the safetensors"),
    ],
)
def test_layers_only_land_where_the_runtime_treats_them_alike(
    tmp_path, architecture, extra, plan, refused
):
    full = {f"{architecture}.{key}": value for key, value in extra.items()}
    file = tiny_gguf.write(tmp_path / "base.gguf", architecture, extra=full)
    if refused:
        with pytest.raises(Refused, match=refused):
            save(file, plan)
    else:
        after = tiny_gguf.metadata(save(file, plan))
        depth = len(Plan.parse(plan, 6))
        assert after[f"{architecture}.block_count"] == depth
        pattern = after.get(f"{architecture}.attention.sliding_window_pattern")
        assert pattern is None or len(pattern) == depth


def test_leading_dense_layers_are_counted_again(tmp_path):
    extra = {"deepseek.leading_dense_block_count": 2}
    file = tiny_gguf.write(tmp_path / "base.gguf", "deepseek", extra=extra)
    after = tiny_gguf.metadata(save(file, "0*2, 1, 3:6"))
    assert after["deepseek.leading_dense_block_count"] == 3
    assert (
        tiny_gguf.metadata(save(file, "3:6", "o.gguf"))["deepseek.leading_dense_block_count"] == 0
    )


@pytest.mark.parametrize(
    ("architecture", "depth", "plan", "effect"),
    [
        ("gemma2", 46, "0:44", "scales attention otherwise"),
        ("gemma2", 44, "0:44, 42:44", "scales attention otherwise"),
        ("command-r", 64, "0:60", "norms of queries"),
        ("phi3", 32, "0:30", "guesses a sliding window"),
        ("baichuan", 32, "0:30", "rotary positions"),
        ("llama", 30, "0:30*18", "at most 512"),
    ],
)
def test_depths_that_the_runtime_takes_for_another_model(
    tmp_path, architecture, depth, plan, effect
):
    file = tiny_gguf.write(
        tmp_path / "base.gguf", architecture, depth=depth, hidden=32, inner=32, kind=Type.F16
    )
    with pytest.raises(Refused, match=effect):
        save(file, plan)


# ------------------------------------------------------------------ split files


def test_split_files_are_read_and_written(tmp_path):
    tiny_gguf.write(tmp_path / "base.gguf", split=20)
    whole = tiny_gguf.write(tmp_path / "whole.gguf")
    first = tmp_path / "base-00001-of-00003.gguf"
    out = save(first, "0:4, 2:6")
    assert tiny_gguf.tensors(out) == tiny_gguf.tensors(save(whole, "0:4, 2:6", "w.gguf"))
    assert not [key for key in tiny_gguf.metadata(out) if key.startswith("split.")]
    made = save_gguf(
        open_gguf_file(first), Plan.parse("0:4", 6), tmp_path / "cut.gguf", shard_size=40_000
    ).files
    assert [path.name for path in made] == [f"cut-0000{i}-of-00004.gguf" for i in (1, 2, 3, 4)]
    joined = {name: value for path in made for name, value in tiny_gguf.tensors(path).items()}
    assert joined == tiny_gguf.tensors(save(whole, "0:4", "x.gguf"))
    for index, path in enumerate(made):
        marks = tiny_gguf.metadata(path)
        assert (marks["split.no"], marks["split.count"]) == (index, 4)
        assert marks["split.tensors.count"] == len(joined)
    assert verify_gguf(made[0], None, silent)[0] == len(joined)
    again = dict(shard_size=40_000, overwrite=True)
    with pytest.raises(SaveError, match="Remove them first"):
        save_gguf(open_gguf_file(first), Plan.parse("0:4", 6), tmp_path / "cut.gguf", **again)


def test_pieces_that_are_missing_or_out_of_place(tmp_path):
    tiny_gguf.write(tmp_path / "base.gguf", split=20)
    one, two, three = (tmp_path / f"base-0000{i}-of-00003.gguf" for i in (1, 2, 3))
    with pytest.raises(BaseError, match="Name the first"):
        open_gguf_file(two)
    three.write_bytes(two.read_bytes())
    with pytest.raises(BaseError, match="doesn't belong to"):
        open_gguf_file(one)
    three.unlink()
    with pytest.raises(BaseError, match=r"00003\.gguf is missing"):
        open_gguf_file(one)
    with pytest.raises(BaseError, match="Name the first"):
        open_gguf_file(one.rename(tmp_path / "renamed.gguf"))


# ------------------------------------------------------------------ whole or not at all


def test_a_cancelled_or_failed_save_leaves_nothing(file, monkeypatch):
    reports = []

    def stop(what, done, total):
        reports.append(what)
        if what == "Verifying" and done > total / 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        save(file, "0:4", progress=stop)
    assert "Writing weights" in reports
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(SaveError, match="no room"):
        save(file, "0:4")
    assert [path.name for path in file.parent.iterdir()] == ["base.gguf"]


def test_a_base_that_changes_meanwhile_is_noticed(file):
    def touch(what, done, total):
        if what == "Verifying":
            file.touch()

    with pytest.raises(BaseError, match="changed since it was opened"):
        save(file, "0:4", progress=touch)
    assert [path.name for path in file.parent.iterdir()] == ["base.gguf"]


def test_only_a_model_is_replaced_and_only_if_asked_to(file):
    folder = file.parent
    out = save(file, "0:4")
    with pytest.raises(SaveError, match="exists already"):
        save(file, "0:3")
    assert tiny_gguf.metadata(save(file, "0:3", overwrite=True))["llama.block_count"] == 3
    with pytest.raises(SaveError, match="is the base itself"):
        save(file, "0:3", "base.gguf", overwrite=True)
    (folder / "link.gguf").symlink_to(file)
    with pytest.raises(SaveError, match="is the base itself"):
        save(file, "0:3", "link.gguf", overwrite=True)
    out.write_text("notes")
    with pytest.raises(SaveError, match="is no saved model"):
        save(file, "0:3", overwrite=True)
    (folder / "a.gguf").mkdir()
    with pytest.raises(SaveError, match="is a folder"):
        save(file, "0:3", "a.gguf", overwrite=True)
    with pytest.raises(SaveError, match="should end in"):
        save(file, "0:3", "out.bin")
    assert not [path for path in folder.iterdir() if path.name.endswith(".partial")]


def test_verify_finds_what_was_changed_afterwards(file):
    out = save(file, "0:4")
    original = out.read_bytes()

    def broken(change):
        data = bytearray(original)
        change(data)
        out.write_bytes(data)
        with pytest.raises((SaveError, BaseError)) as caught:
            verify_gguf(out, file, silent)
        return str(caught.value)

    def in_tensor(data):
        data[-5000] ^= 1

    def in_metadata(data):
        at = original.index(b"llama.context_length") + len("llama.context_length") + 4
        data[at] ^= 1

    def longer(data):
        data += b"\0"

    assert "the bytes of" in broken(in_tensor)
    assert "llama.context_length" in broken(in_metadata)
    assert "another length" in broken(longer)
    assert "cut off" in broken(lambda data: data.__delitem__(slice(300, None)))
    out.write_bytes(original)
    assert verify_gguf(out, file, silent)[0] == 39
    with pytest.raises(SaveError, match="records no plan"):
        verify_gguf(file, None, silent)
    file.rename(file.with_name("elsewhere.gguf"))
    with pytest.raises(BaseError, match=r"The base, base.gguf, isn't beside it"):
        verify_gguf(out, None, silent)


def test_other_tensors_and_layers_beyond_the_last(tmp_path):
    factors = {"rope_freqs.weight": np.ones(8, np.float32)}
    file = tiny_gguf.write(tmp_path / "base.gguf", tensors=factors)
    assert "rope_freqs.weight" in tiny_gguf.tensors(save(file, "0:4"))
    file = tiny_gguf.write(tmp_path / "v.gguf", tensors={"v.blk.0.ln1": np.ones(8, np.float32)})
    with pytest.raises(Refused, match=r"v\.blk\.0\.ln1 belongs to layers"):
        save(file, "0:4", "o.gguf")
    beyond = {"blk.6.nextn.eh_proj.weight": np.ones(8, np.float32)}
    file = tiny_gguf.write(tmp_path / "beyond.gguf", tensors=beyond)
    with pytest.raises(BaseError, match=r"6 layers and a tensor blk.6.nextn"):
        save(file, "0:4", "o.gguf")


def test_the_writer_agrees_with_the_gguf_package_on_alignment(tmp_path):
    writer_default = gguf.GGUF_DEFAULT_ALIGNMENT
    file = tiny_gguf.write(tmp_path / "base.gguf", inner=32)
    out = save(file, "0:6")
    offsets = [tensor.data_offset for tensor in gguf.GGUFReader(out).tensors]
    assert offsets == sorted(offsets) and not any(at % writer_default for at in offsets)
    assert out.stat().st_size % writer_default == 0
