"""Verifying what was saved: one wrong byte, name, shape or dtype is found and named."""

import json
import shutil
import struct

import pytest
import tiny

from surgery import Base, BaseError, Cancelled, Plan, SaveError, stack
from surgery.recipes.recipe import read_file
from surgery.verification.saved import verify_saved


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory):
    """(a base's folder, what was saved of it): copied, changed and converted tensors."""
    home = tiny_folder("llama", max_shard_size="100KB")
    plan = Plan.parse("0:3, 2@identity, 4@scale=0.5, 5", 6)
    place = tmp_path_factory.mktemp("saved") / "out"
    return home, Base.open(str(home)).save(plan, place, shard_size="150KB")


@pytest.fixture
def saved(made, tmp_path):
    """The same, with a copy of what was saved, to be changed."""
    home, out = made
    return home, shutil.copytree(out, tmp_path / "out")


def check(home, out, progress=lambda *args: None):
    return verify_saved(out, str(home), progress, Base.open)


def header(path):
    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    return raw, json.loads(raw[8 : 8 + length]), 8 + length


def write(path, head, data):
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))


def holder(out, name):
    index = json.loads((out / "model.safetensors.index.json").read_text())
    return out / index["weight_map"][name]


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_what_was_saved_is_as_planned(tiny_folder, tmp_path, dtype):
    base = Base.open(str(tiny_folder("mixtral")))
    plan = Plan.parse("0:3, 2@identity, 4@scale=0.5, 5", 6)
    out = base.save(plan, tmp_path / "out", dtype=dtype)
    reports = []
    count, size = check(
        tiny_folder("mixtral"), out, lambda what, done, total: reports.append((what, done, total))
    )
    assert size == base.preview(plan).bytes // (2 if dtype else 1)
    assert count == len(Base.open(str(out)).source.tensors)
    assert ("Verifying", 0, size) in reports and ("Verifying", size, size) in reports


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.3.self_attn.o_proj.weight",  # zeroed
        "model.layers.4.mlp.down_proj.weight",  # scaled
        "model.layers.5.mlp.up_proj.weight",
    ],
)
def test_one_bit(saved, name):
    home, out = saved
    path = holder(out, name)
    raw, head, begin = header(path)
    raw[begin + head[name]["data_offsets"][1] - 1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(SaveError, match="differ from the base's"):
        check(home, out)


def test_names_shapes_and_dtypes(saved):
    home, out = saved
    name = "model.layers.1.self_attn.q_proj.weight"
    path = holder(out, name)
    raw, head, begin = header(path)
    for change, message in (
        (dict(shape=[64, 64, 1]), r"q_proj.weight is F32 \[64, 64, 1\], not"),
        (dict(dtype="I32"), r"q_proj.weight is I32 \[64, 64\], not F32"),
    ):
        write(path, {**head, name: {**head[name], **change}}, raw[begin:])
        with pytest.raises(SaveError, match=message):
            check(home, out)
    index = out / "model.safetensors.index.json"
    fields = json.loads(index.read_text())
    fields["weight_map"]["model.layers.1.other"] = fields["weight_map"].pop(name)
    index.write_text(json.dumps(fields))
    write(path, {k.replace(name, "model.layers.1.other"): v for k, v in head.items()}, raw[begin:])
    with pytest.raises(SaveError, match=r"q_proj.weight is missing \(1 in all\)"):
        check(home, out)


def test_a_config_that_does_not_fit(saved):
    """Every tensor is as planned, and the model would still load wrong."""
    home, out = saved
    config = json.loads((out / "config.json").read_text())
    for change, message in (
        (dict(num_hidden_layers=7), "is missing"),
        (dict(num_hidden_layers=5), "has no place in the model"),
        (dict(intermediate_size=97), "shape"),
        (dict(model_type="nonsense"), "can't load the checkpoint"),
    ):
        (out / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(SaveError, match=message):
            check(home, out)


def test_a_save_that_went_wrong_never_appears(tiny_folder, tmp_path, monkeypatch):
    """A disk that forgets: what is read back is not what was written."""
    from surgery.io.copy import by_buffer

    class Forgetful:
        def move(self, source, start, target, at, size, meter):
            by_buffer(source, start, target, at, size)
            target.seek(at + size // 2)
            target.write(b"\x00\x01\x02\x03")

    monkeypatch.setattr("surgery.checkpoint.writer.Mover", Forgetful)
    base = Base.open(str(tiny_folder("llama")))
    with pytest.raises(SaveError, match="differ from the base's"):
        base.save(Plan.whole(6), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    base.save(Plan.whole(6), tmp_path / "out", verified=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_it_can_be_stopped(tiny_folder, tmp_path):
    def stop(what, done, total):
        if what == "Verifying":
            raise Cancelled

    with pytest.raises(Cancelled):
        Base.open(str(tiny_folder("llama"))).save(Plan.whole(6), tmp_path / "out", progress=stop)
    assert not list(tmp_path.iterdir())


def test_what_can_t_be_verified(saved, tmp_path):
    home, out = saved
    with pytest.raises(BaseError, match="Name the base: verify OUT BASE"):
        verify_saved(out, None, lambda *args: None, lambda spec: Base.open("./gone/"))
    with pytest.raises(SaveError, match="no folder"):
        check(home, tmp_path / "nowhere")
    shutil.copytree(home, tmp_path / "other")
    with pytest.raises(SaveError, match=r"no recipe\.yaml"):
        check(home, tmp_path / "other")


def test_a_stack_of_several_bases(tiny_folder, tmp_path):
    one, two = tiny_folder("llama"), tmp_path / "two"
    model = tiny.model("llama")
    model.lm_head.weight.data.neg_()
    model.model.layers[1].mlp.down_proj.weight.data.neg_()
    model.save_pretrained(two)
    a, b = (Base.open(str(home)) for home in (one, two))
    made, flat = stack(a, {"b": b}, Plan.parse("0:3, b/1@scale=2, b/2:6", 6, {"b": 6}))
    made.save(flat, tmp_path / "out")
    recipe = read_file(tmp_path / "out" / "recipe.yaml")
    assert list(recipe.names.values()) == ["", "b"]

    def open_base(model):
        return {a.name: a, b.name: b}[model]

    tensors, _ = verify_saved(tmp_path / "out", None, lambda *args: None, open_base)
    assert tensors == len(a.source.tensors) + 2 * 9
    # The same layers from the first base alone are not what was saved.
    with pytest.raises(SaveError, match="differ"):
        verify_saved(tmp_path / "out", str(one), lambda *args: None, Base.open, {"b": str(one)})
