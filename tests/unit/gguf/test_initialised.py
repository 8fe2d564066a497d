"""Initialisers on quantized tensors: exact, or refused."""

import gguf
import numpy as np
import pytest
import tiny_gguf
from gguf import GGMLQuantizationType as Type

from surgery import Plan, Refused
from surgery.gguf import open_gguf_file, save_gguf
from surgery.gguf.ggml_types import TYPES
from surgery.gguf.initialised import _multiply, changed

ZEROS = [kind for kind in TYPES.values() if kind.zeros]
FACTORS = [kind for kind in TYPES.values() if kind.factors]


def save(path, plan, **options):
    base = open_gguf_file(path)
    return save_gguf(base, Plan.parse(plan, base.depth), path.with_name("out.gguf"), **options)


def decoded(path, name):
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    return gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)


@pytest.mark.parametrize("kind", ZEROS, ids=lambda kind: kind.name)
def test_zero_bytes_decode_to_zeros(kind):
    dtype = {"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8)
    blocks = np.zeros((4, kind.bytes), np.uint8).view(dtype)
    assert not gguf.quants.dequantize(blocks, Type(kind.number)).any()


@pytest.mark.parametrize("kind", FACTORS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("factor", [0.5, -2.0])
def test_multiplied_factors_multiply_the_values(kind, factor):
    rng = np.random.default_rng(kind.number)
    blocks = rng.integers(0, 256, (64, kind.bytes), dtype=np.uint8)
    for offset in kind.factors:
        scales = rng.normal(size=64).astype(np.float16)
        blocks[:, offset : offset + 2] = scales[:, None].view(np.uint8)
    before = gguf.quants.dequantize(blocks, Type(kind.number))
    info = type("Info", (), {"type": kind, "name": "x"})
    _multiply(blocks.reshape(-1), info, factor)
    after = gguf.quants.dequantize(blocks, Type(kind.number))
    assert before.any() and np.array_equal(after, before * np.float32(factor))


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_1])
def test_what_each_initialiser_does_to_a_layer(tmp_path, kind):
    file = tiny_gguf.write(tmp_path / "base.gguf", kind=kind, depth=2)
    plan = "0, 0@identity, 1@no-attention, 1@no-mlp, 1@scale=0.25, 1@scale=0, 0@scale=1"
    out = save(file, plan).files[0]
    outputs = {"attn_output": [1, 0, 0, 1, 0.25, 0, 1], "ffn_down": [1, 0, 1, 0, 0.25, 0, 1]}
    before, after = tiny_gguf.tensors(file), tiny_gguf.tensors(out)
    for position, source in enumerate((0, 0, 1, 1, 1, 1, 0)):
        for name in ("attn_norm", "attn_q", "attn_k", "attn_v", "ffn_norm", "ffn_gate", "ffn_up"):
            one, other = (f"blk.{layer}.{name}.weight" for layer in (source, position))
            assert before[one] == after[other]
        for name, factors in outputs.items():
            one = decoded(file, f"blk.{source}.{name}.weight")
            other = decoded(out, f"blk.{position}.{name}.weight")
            assert one.any() and np.array_equal(one * np.float32(factors[position]), other)


@pytest.mark.parametrize(
    ("kind", "plan", "message"),
    [
        (Type.Q8_0, "0@scale=0.3", "only powers of two"),
        (Type.F32, "0@scale=3", "only powers of two"),
        (Type.Q8_0, "0@scale=1e-30", "only powers of two"),
        (Type.Q8_0, f"0@scale={2.0**-20}", "out of the range of Q8_0"),
        (Type.F16, f"0@scale={2.0**30}", "out of the range of F16"),
        (Type.MXFP4, "0@scale=0.5", "whose blocks can't be multiplied"),
        (Type.Q8_0, "0@random", "makes new weights"),
        (Type.Q8_0, "0@average, 1", "makes new weights"),
        (Type.Q8_0, "0@lstsq", "makes new weights"),
    ],
)
def test_what_would_round_or_make_weights_is_refused(tmp_path, kind, plan, message):
    file = tiny_gguf.write(tmp_path / "base.gguf", kind=kind)
    with pytest.raises(Refused, match=message):
        save(file, plan)
    assert [path.name for path in tmp_path.iterdir()] == ["base.gguf"]


def test_layers_with_more_than_attention_and_an_mlp(tmp_path):
    file = tiny_gguf.write(tmp_path / "a.gguf", layer_tensors=("ssm_mystery",))
    with pytest.raises(Refused, match=r"does with blk\.0\.ssm_mystery"):
        save(file, "0, 0@identity")
    extra = {"gemma2.attention.sliding_window": 8}
    file = tiny_gguf.write(
        tmp_path / "b.gguf", "gemma2", extra=extra, layer_tensors=("post_ffw_norm",)
    )
    with pytest.raises(Refused, match="normalises what it scales"):
        save(file, "0:6@scale=0.5")
    assert not decoded(save(file, "0, 1@identity").files[0], "blk.1.ffn_down.weight").any()
    file = tiny_gguf.write(tmp_path / "c.gguf", "mamba2")
    with pytest.raises(Refused, match="What a layer of mamba2 adds"):
        save(file, "0@identity")
    assert save(file, "0:4, 0", overwrite=True).layers == 5


def test_tensors_larger_than_a_block_are_changed_throughout(tmp_path, monkeypatch):
    file = tiny_gguf.write(tmp_path / "base.gguf", depth=1)
    monkeypatch.setattr("surgery.gguf.initialised._BLOCK", 1000)
    out = save(file, "0@scale=2").files[0]
    name = "blk.0.ffn_down.weight"
    assert np.array_equal(decoded(out, name), decoded(file, name) * 2)
    tensor = open_gguf_file(file).layers[0]["ffn_down.weight"]
    assert len(next(changed(tensor, 0.0, lambda *where: None))) == 986
