"""Tiny GGUF files: a Llama of random weights as llama.cpp's converter lays it out, and others."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

DEPTH, HIDDEN, HEADS, KV_HEADS, INNER, VOCAB = 6, 64, 4, 2, 96, 128


def write(
    path: Path,
    architecture: str = "llama",
    *,
    depth: int = DEPTH,
    hidden: int = HIDDEN,
    inner: int = INNER,
    kind: Type = Type.Q8_0,
    extra: dict | None = None,
    tensors: dict | None = None,
    split: int = 0,
    layer_tensors: tuple[str, ...] = (),
) -> Path:
    """Write a model whose matrices are stored as `kind`. `extra` has more metadata by key, lists
    for arrays; `tensors` more arrays by name, and `layer_tensors` names more vectors of each layer.
    `split` is the most tensors in one file."""
    rng = np.random.default_rng(0)
    options = {"split_max_tensors": split} if split else {}
    writer = gguf.GGUFWriter(path, architecture, **options)
    writer.add_name("Tiny")
    writer.add_size_label("1K")
    writer.add_uuid("c0ffee")
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_Q8_0))
    writer.add_tags(["a", "b", "c"])
    writer.add_block_count(depth)
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_vocab_size(VOCAB)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    defaults = {
        f"{architecture}.feed_forward_length": inner,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KV_HEADS,
    }
    for key, value in {**defaults, **(extra or {})}.items():
        _add(writer, key, value)
    add_tokenizer(writer)
    matrices = {
        "attn_q": (hidden, hidden),
        "attn_k": (hidden // HEADS * KV_HEADS, hidden),
        "attn_v": (hidden // HEADS * KV_HEADS, hidden),
        "attn_output": (hidden, hidden),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }

    def matrix(name: str, shape: tuple[int, ...]) -> None:
        values = rng.normal(scale=0.2, size=shape).astype(np.float32)
        values += np.copysign(np.float32(0.01), values)  # far from what float16 rounds to zero
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    matrix("token_embd.weight", (VOCAB, hidden))
    for layer in range(depth):
        for name in ("attn_norm", "ffn_norm", *layer_tensors):
            vector = rng.normal(loc=1, scale=0.1, size=hidden).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight", vector)
        for name, shape in matrices.items():
            matrix(f"blk.{layer}.{name}.weight", shape)
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    matrix("output.weight", (VOCAB, hidden))
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """A vocabulary of single characters and one merge."""
    words = [chr(33 + i) if i < 90 else f"{33 + i}" for i in range(VOCAB - 1)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*words, "ab"])
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges(["a b"])  # the writer leaves empty lists out
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _add(writer: gguf.GGUFWriter, key: str, value) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def tensors(path: Path) -> dict[str, tuple]:
    """{name: (type, shape, bytes)} of a GGUF file, as the gguf package reads it."""
    return {
        tensor.name: (tensor.tensor_type, tuple(tensor.shape), tensor.data.tobytes())
        for tensor in gguf.GGUFReader(path).tensors
    }


def metadata(path: Path) -> dict:
    """{key: value} of a GGUF file, as the gguf package reads it."""
    return {
        key: field.contents()
        for key, field in gguf.GGUFReader(path).fields.items()
        if not key.startswith("GGUF.")
    }
