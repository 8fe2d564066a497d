"""The architectures whose layers can be moved within a GGUF file, and where to.

A GGUF file doesn't say all that llama.cpp does with a layer: for many architectures its code goes
by the layer's number (`src/models/*.cpp`), as in “every 6th layer has full attention”, and for some
by the number of layers. What is known of each is written down here; others are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

WINDOWS = "attention.sliding_window"
PATTERN = "attention.sliding_window_pattern"
DENSE = "leading_dense_block_count"


@dataclass(frozen=True)
class Every:
    """Every `n`-th layer is of another kind: those whose number, counted from 1, `n` divides.

    A file may have another number under `key`, or the kinds of all layers in an array under
    `array`. Without a `when` in the file, or with a 0 there, all layers are alike. `kinds` names
    the n-th layer's kind and the others'.
    """

    n: int
    kinds: tuple[str, str]
    key: str = ""
    array: str = ""
    when: str = ""


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp tells the layers of an architecture apart.

    `every` lists what depends on a layer's number. The first layers are dense, the others
    mixtures of experts, where `leading_dense`. `by_depth` gives what llama.cpp derives from the
    number of layers, unless the file has the key `depth_key`; `hybrid` models need at least one
    layer of each kind.
    """

    every: tuple[Every, ...] = ()
    leading_dense: bool = False
    by_depth: Callable[[int], object] | None = None
    depth_effect: str = ""
    depth_key: str = ""
    hybrid: bool = False


def _windows(n: int, *, optional: bool = False) -> Every:
    kinds = ("full attention", "sliding-window attention")
    return Every(n, kinds, key=PATTERN, array=PATTERN, when=WINDOWS if optional else "")


_LINEAR = Every(
    4,
    ("full attention", "linear attention"),
    key="full_attention_interval",
    array="attention.recurrent_layers",
)
# All layers are treated alike, wherever they are; values that may differ are in per-layer arrays.
_UNIFORM = (
    *("apertus", "arcee", "bitnet", "bloom", "chatglm", "codeshell", "dbrx", "deci", "ernie4_5"),
    *("exaone", "falcon", "falcon-h1", "gemma", "gpt2", "gptneox", "granite", "granitemoe"),
    *("hunyuan-dense", "hunyuan-moe", "internlm2", "jais", "llama", "mamba", "mamba2"),
    *("minimax-m2", "mistral3", "mpt", "nemotron", "olmo", "olmoe", "openelm", "orion", "phi2"),
    *("phimoe", "plamo", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "refact"),
    *("seed_oss", "stablelm", "starcoder", "starcoder2", "xverse"),
)
ARCHITECTURES = {
    **dict.fromkeys(_UNIFORM, Architecture()),
    "baichuan": Architecture(
        by_depth=lambda depth: depth,
        depth_effect="computes models of 32 layers (with rotary positions) and of 40 (with ALiBi) "
        "only",
    ),
    "cohere2": Architecture((_windows(4),)),
    "command-r": Architecture(
        by_depth=lambda depth: depth >= 64,
        depth_effect="expects norms of queries and keys from 64 layers on",
    ),
    "deepseek": Architecture(leading_dense=True),
    "deepseek2": Architecture(
        leading_dense=True,
        by_depth=lambda depth: depth if depth in (26, 27, 47, 48) else 0,
        depth_effect="takes models of 26, 27 or 48 layers for those without compressed queries",
    ),
    "dots1": Architecture(leading_dense=True),
    "ernie4_5-moe": Architecture(
        (Every(1, ("experts", "one dense MLP"), key="interleave_moe_layer_step"),),
        leading_dense=True,
    ),
    "exaone4": Architecture(
        (_windows(4, optional=True),),
        by_depth=lambda depth: depth == 64,
        depth_effect="uses sliding windows for 64 layers only",
    ),
    "gemma2": Architecture(
        (_windows(2),),
        by_depth=lambda depth: depth == 46,
        depth_effect="scales attention otherwise for 46 layers, those of the 27B model",
    ),
    "gemma3": Architecture(
        (_windows(6, optional=True),),
        by_depth=lambda depth: depth == 62,
        depth_effect="scales attention otherwise for 62 layers, those of the 27B model",
    ),
    "gpt-oss": Architecture((_windows(2),)),
    "granitehybrid": Architecture(hybrid=True),
    "jamba": Architecture(hybrid=True),
    "lfm2": Architecture(hybrid=True),
    "lfm2moe": Architecture(leading_dense=True, hybrid=True),
    "nemotron_h": Architecture(hybrid=True),
    "olmo2": Architecture((_windows(4, optional=True),)),
    "phi3": Architecture(
        by_depth=lambda depth: depth if depth in (32, 40) else 0,
        depth_effect="guesses a sliding window for 32 or 40 layers, in older versions",
        depth_key=WINDOWS,
    ),
    "qwen35": Architecture((_LINEAR,), hybrid=True),
    "qwen35moe": Architecture((_LINEAR,), hybrid=True),
    "qwen3next": Architecture((_LINEAR,), hybrid=True),
    "smollm3": Architecture(
        (Every(4, ("attention without positions", "attention with rotary positions")),)
    ),
}
# What a layer of these adds to the hidden state is its output projections' results, nothing else.
RESIDUAL = {
    *("arcee", "cohere2", "command-r", "exaone", "falcon", "gemma", "gemma2", "gemma3", "gpt-oss"),
    *("gpt2", "gptneox", "granite", "internlm2", "llama", "mistral3", "nemotron", "olmo", "olmo2"),
    *("olmoe", "phi2", "phi3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "seed_oss", "smollm3"),
    *("stablelm", "starcoder2"),
}
