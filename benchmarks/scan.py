"""A scan of the bundled model against the arithmetic's limit, in one run.

The limit is the time that the scan's matrix products take alone: products of the same shapes, from
weights that are in the processor's cache where they fit, in float32 or in the stored dtype,
whichever is faster. `ONEDNN_MAX_CPU_ISA=AVX2` makes PyTorch compute as on a processor without
AVX-512, as most laptops have it.
"""

import tempfile
import time
from unittest import mock

import torch
from torch import nn

from surgery import Base, Plan
from surgery.analysis import Sample, scan
from surgery.analysis.passes import batches_of
from surgery.compute.contexts import compute_dtype
from surgery.texts import TEXTS

TOKENS = 542


def product_seconds(layers: nn.Module, rows: int, dtype: torch.dtype) -> float:
    """Seconds that the products with all weights of `layers` take, for `rows` rows."""
    total = 0.0
    for linear in layers.modules():
        if isinstance(linear, nn.Linear):
            weight = linear.weight.detach().to(dtype)
            given = torch.ones(rows, weight.shape[1], dtype=dtype)
            best = float("inf")
            for _ in range(5):
                begun = time.perf_counter()
                nn.functional.linear(given, weight)
                best = min(best, time.perf_counter() - begun)
            total += best
    return total


def measure() -> dict[str, float | str]:
    """Scan the bundled model; times in seconds, speeds in FLOP/s."""
    base = Base.open("bundled")
    model = base.load()
    sample = Sample.of(base, list(TEXTS.values()), limit=TOKENS)
    first: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict("os.environ", LAYER_SURGERY_CACHE=folder),
    ):
        begun = time.perf_counter()
        result = scan(base, sample, on_update=lambda _: first.append(time.perf_counter() - begun))
        seconds = time.perf_counter() - begun
    layer, head = model.model.layers[0], model.lm_head
    heads = 1 + len(result.drop_one) + len(result.repeat_one)
    limits = {}
    for dtype in (torch.float32, model.dtype):
        limits[dtype] = sum(
            result.layer_forwards * product_seconds(layer, rows, dtype)
            + heads * product_seconds(nn.ModuleList([head]), rows, dtype)
            for rows in (
                sum(map(len, sample.windows[start:end])) for start, end in batches_of(model, sample)
            )
        )
    tokens = sum(map(len, sample.windows))
    values = sum(p.numel() for p in layer.parameters())
    return {
        "tokens": tokens,
        "stored": str(model.dtype).removeprefix("torch."),
        "computed": str(compute_dtype(base.operate(Plan.whole(base.depth)).model)).removeprefix(
            "torch."
        ),
        "seconds": seconds,
        "first": first[0],
        "flop": 2 * tokens * (result.layer_forwards * values + heads * head.weight.numel()),
        "float32": limits[torch.float32],
        "limit": min(limits.values()),
        "stored_limit": limits[model.dtype],
    }


def main() -> None:
    """Print the figures."""
    m = measure()
    print(f"threads                             {torch.get_num_threads()}")
    print(f"stored {m['stored']}, computed in {m['computed']}; {m['tokens']} tokens")
    print(f"scan: drop-one, repeat-one, …       {m['seconds']:8.1f} s")
    print(f"first scores                        {m['first']:8.1f} s")
    print(f"its matrix products alone, float32  {m['float32']:8.1f} s")
    print(f"its matrix products alone, stored   {m['stored_limit']:8.1f} s")
    print(f"scan / products in the faster dtype {m['seconds'] / m['limit']:8.2f}")
    print(f"arithmetic                          {m['flop'] / 1e12:8.2f} TFLOP")
    print(f"speed reached                       {m['flop'] / m['seconds'] / 1e9:8.1f} GFLOP/s")
