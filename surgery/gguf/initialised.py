"""Initialisers on quantized tensors, where a type allows them exactly: zeros, and powers of two.

Zeroed output projections are blocks of zero bytes. A factor multiplies the blocks' own factors; it
is refused if a result would be rounded, since nothing else in a quantized tensor can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import numpy as np

from surgery.checkpoint.tensor_spec import Opener
from surgery.errors import Refused
from surgery.initialisers import Block
from surgery.io.copy import fill
from surgery.plan import Init

from .architectures import RESIDUAL
from .file import GgufFile
from .header import TensorInfo

_BLOCK = 4 << 20  # bytes that are in memory at a time
# Tensors of a layer by what llama.cpp does with them. Where there are others, what a layer would
# add with its output projections zeroed isn't known.
_OUTPUTS = {
    "attn_output": Block.ATTENTION,
    **dict.fromkeys(("ffn_down", "ffn_down_exps", "ffn_down_shexp"), Block.MLP),
}
_INPUTS = {
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_q_norm", "attn_k_norm"),
    *("attn_norm_2", "attn_sinks", "rope_freqs", "ffn_norm", "ffn_gate", "ffn_up", "ffn_gate_inp"),
    *("ffn_gate_exps", "ffn_up_exps", "ffn_gate_up_exps", "ffn_gate_shexp", "ffn_up_shexp"),
    "ffn_gate_inp_shexp",
}
_NORMS_AFTER = {"post_attention_norm", "post_ffw_norm"}
_PARTS = re.compile(r"(?P<stem>[a-z0-9_]+)\.(?P<part>weight|bias)")


def factors(base: GgufFile, layer: int, init: Init) -> dict[str, float]:
    """{rest of a tensor's name: what it is multiplied by} for a layer and an initialiser.

    Raises `Refused` if the initialiser does anything else, or can't be exact.
    """
    tensors, initialiser = base.layers[layer], init.initialiser
    if initialiser.output_factor is None and initialiser.block is None:
        raise Refused(
            f"@{init} makes new weights, and a GGUF file's tensors are only copied, zeroed or "
            "scaled. Save a folder instead."
        )
    if init.factor_of(Block.ATTENTION) == init.factor_of(Block.MLP) == 1.0:
        return {}
    if base.architecture not in RESIDUAL:
        raise Refused(
            f"What a layer of {base.architecture[:40]} adds isn't known here, so @{init} can't be "
            "saved as GGUF. Save a folder instead."
        )
    found: dict[str, float] = {}
    blocks = set()
    for rest, tensor in tensors.items():
        m = _PARTS.fullmatch(rest)
        stem = m["stem"] if m else rest
        block = _OUTPUTS.get(stem) if m else None
        after = stem in _NORMS_AFTER and m is not None and m["part"] == "weight"
        if block is None and not after and not (m and stem in _INPUTS):
            raise Refused(
                f"What llama.cpp does with {tensor.name[:80]} isn't known here, so @{init} can't "
                "be saved as GGUF. Save a folder instead."
            )
        factor = init.factor_of(block) if block else 1.0
        if factor is None or (after and init.factor not in (0.0, 1.0)):
            raise Refused(
                f"@{init} would have no effect: {tensor.name[:80]} normalises what it scales."
            )
        if block is not None:
            blocks.add(block)
            if factor != 1.0:
                _check_exact(tensor, factor, init)
                found[rest] = factor
    if not found or (initialiser.block is None and len(blocks) < 2):
        raise Refused(f"Layer {layer} has no output projections that @{init} would change.")
    return found


def changed(tensor: TensorInfo, factor: float, opener: Opener) -> Iterator[memoryview]:
    """The bytes of a tensor times a factor. Raises `Refused` if a value would be rounded."""
    step = max(1, _BLOCK // tensor.type.bytes) * tensor.type.bytes
    if factor == 0:
        for done in range(0, tensor.size, step):
            yield memoryview(bytes(min(step, tensor.size - done)))
        return
    with opener(str(tensor.file), tensor.start, tensor.start + tensor.size) as file:
        for done in range(0, tensor.size, step):
            data = bytearray(min(step, tensor.size - done))
            fill(file, tensor.start + done, data)
            _multiply(np.frombuffer(data, np.uint8), tensor, factor)
            yield memoryview(data)


def maker(tensor: TensorInfo, factor: float) -> partial[Iterator[memoryview]]:
    """`changed` of this tensor, for a `TensorSpec`."""
    return partial(changed, tensor, factor)


def _check_exact(tensor: TensorInfo, factor: float, init: Init) -> None:
    kind = tensor.type
    if factor == 0:
        if not kind.zeros:
            raise Refused(
                f"{tensor.name[:80]} is stored as {kind.name}, which isn't known to hold zeros: "
                f"@{init} can't be saved as GGUF. Save a folder instead."
            )
        return
    if not (kind.factors or kind.is_float):
        raise Refused(
            f"{tensor.name[:80]} is stored as {kind.name}, whose blocks can't be multiplied: "
            f"@{init} can't be saved as GGUF. Save a folder instead."
        )
    if abs(float(np.frexp(factor)[0])) != 0.5:
        raise Refused(
            f"@{init} would round the stored weights: only powers of two (0.5, 2, -1 …) multiply "
            "them exactly. Save a folder instead."
        )


def _multiply(data: np.ndarray, tensor: TensorInfo, factor: float) -> None:
    """Multiply values in place, or the factors of their blocks."""
    kind = tensor.type
    if kind.name == "F32":
        values = data.view("<f4")
        _store(values, values.astype(np.float64) * factor, tensor)
    elif kind.name == "BF16":
        stored = data.view("<u2")
        wide = (stored.astype("<u4") << 16).view("<f4")
        with np.errstate(over="ignore", under="ignore"):
            product = (wide.astype(np.float64) * factor).astype("<f4")
        bits = product.view("<u4")
        exact = (bits & 0xFFFF) == 0
        _check(
            exact & (product.astype(np.float64) == wide.astype(np.float64) * factor), wide, tensor
        )
        stored[:] = (bits >> 16).astype("<u2")
    elif kind.name == "F16":
        values = data.view("<f2")
        _store(values, values.astype(np.float64) * factor, tensor)
    else:
        rows = data.reshape(-1, kind.bytes)
        for offset in kind.factors:
            values = np.ascontiguousarray(rows[:, offset : offset + 2]).view("<f2")[:, 0].copy()
            _store(values, values.astype(np.float64) * factor, tensor)
            rows[:, offset : offset + 2] = values[:, None].view(np.uint8)


def _store(values: np.ndarray, wanted: np.ndarray, tensor: TensorInfo) -> None:
    with np.errstate(over="ignore", under="ignore"):
        new = wanted.astype(values.dtype)
    _check(new.astype(np.float64) == wanted, values, tensor)
    values[:] = new


def _check(same: np.ndarray, values: np.ndarray, tensor: TensorInfo) -> None:
    """Raise `Refused` unless every finite value stays exact."""
    if not (same | ~np.isfinite(values.astype(np.float64))).all():
        raise Refused(
            f"The factor takes values of {tensor.name[:80]} out of the range of "
            f"{tensor.type.name}. Choose a smaller step, or save a folder instead."
        )
