"""GGUF files, written here tensor by tensor: dequantized by the library, or refused."""

import os

import gguf
import numpy as np
import pytest
import tiny
import torch

from surgery import Base, BaseError, Plan, Refused

HEADS, KV_HEADS = 4, 2


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))


def write(path, model, extra=()):
    """A tiny Llama as an unquantized GGUF, as llama.cpp's converter lays it out."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    words = [chr(33 + i) if i < 90 else f"{33 + i}" for i in range(config.vocab_size - 1)]
    words.append("ab")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges(["a b"])  # the writer leaves empty lists out
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        for part, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS)):
            if part in name:
                rows = values.reshape(heads, 2, -1, values.shape[-1])
                values = rows.swapaxes(1, 2).reshape(values.shape)
        stem, _, end = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{end}", np.ascontiguousarray(values))
    for name, values in extra:
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def model():
    return tiny.model("llama", dtype=torch.bfloat16)


@pytest.fixture
def file(model, tmp_path):
    path = tmp_path / "tiny.gguf"
    write(path, model)
    return path


def test_a_gguf_is_a_base_like_any_other(file, model, tmp_path):
    base = Base.open(str(file))
    assert (base.kind, base.depth, base.dtype) == ("gguf", tiny.DEPTH, "bfloat16")
    assert not (tmp_path / "cache").exists()  # nothing is converted before it is needed
    before = base.preview(Plan.parse("0:4", 6))
    ids = tiny.tokens()
    with torch.no_grad():
        assert torch.equal(base.model(input_ids=ids).logits, model(input_ids=ids).logits)
    out = base.save(Plan.parse("0:4", 6), tmp_path / "out")
    assert base.preview(Plan.parse("0:4", 6)) == before
    assert Base.open(str(out)).preview(Plan.whole(4)) == before
    folder = base.source.fetch()
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    again = Base.open(str(file))
    assert again.source.fetch() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_changed_file_is_noticed_and_one_that_is_gone_until_there_is_a_converted_copy(file):
    base = Base.open(str(file))
    os.utime(file, (1, 1))
    assert base.source.has_changed
    again = Base.open(str(file))
    assert again is not base and again.load() and not again.source.has_changed
    os.utime(file, (2, 2))  # the copy isn't that of this file
    assert again.source.has_changed
    file.unlink()  # the copy is whole
    assert not again.source.has_changed and again.source.fetch()


def test_a_file_that_the_reader_knows_only_in_part_is_refused(model, tmp_path):
    """Llama 3's files carry factors for its rotary embedding that transformers leaves out."""
    path = tmp_path / "llama3.gguf"
    write(path, model, [("rope_freqs.weight", np.ones(8, dtype=np.float32))])
    with pytest.raises(Refused, match="would not be the one in the file"):
        Base.open(str(path)).load()
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]


def test_a_piece_of_a_split_model_is_named_as_one(file):
    piece = file.rename(file.with_name("tiny-00001-of-00003.gguf"))
    with pytest.raises(BaseError, match="is one of the 3 pieces of a split model"):
        Base.open(str(piece))
    whole = piece.rename(file.with_name("tiny-00001-of-00001.gguf"))
    assert Base.open(str(whole)).depth == tiny.DEPTH


def test_a_path_that_is_not_utf_8(file):
    other = file.rename(file.parent / os.fsdecode(b"t\xffny.gguf"))
    assert Base.open(str(other)).depth == tiny.DEPTH


def test_files_that_are_no_gguf(tmp_path, file):
    with pytest.raises(BaseError, match="no file"):
        Base.open(str(tmp_path / "none.gguf"))
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(BaseError, match="not a GGUF file"):
        Base.open(str(tmp_path / "x.gguf"))
    raw = file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(raw[:600])
    with pytest.raises(BaseError, match="can't be read as GGUF"):
        Base.open(str(tmp_path / "cut.gguf"))
    (tmp_path / "short.gguf").write_bytes(raw[:-5000])
    with pytest.raises(BaseError, match="can't be read as GGUF"):
        Base.open(str(tmp_path / "short.gguf")).load()
