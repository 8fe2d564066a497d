"""A scan of the bundled model against the arithmetic's limit, in one run.

The limit is the time of the scan's matrix products as plain float32 and stored-dtype products on
this machine, whichever is faster. `ONEDNN_MAX_CPU_ISA=AVX2` makes PyTorch compute as on a processor
without AVX-512, as most laptops have it.
"""

import tempfile
import time
from unittest import mock

import torch

from surgery import Base, Plan
from surgery.analysis import Sample, scan
from surgery.compute import compute_dtype
from surgery.texts import TEXTS

TOKENS = 542
ROWS = 256


def peak(dtype: torch.dtype, width: int = 576, inner: int = 1536) -> float:
    """FLOP/s of a product as large as those of the bundled model's layers."""
    rows = torch.ones(ROWS, width, dtype=dtype)
    weight = torch.ones(inner, width, dtype=dtype)
    best = float("inf")
    for _ in range(100):
        begun = time.perf_counter()
        torch.nn.functional.linear(rows, weight)
        best = min(best, time.perf_counter() - begun)
    return 2 * ROWS * width * inner / best


def main() -> None:
    """Print the table."""
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
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    heads = 1 + len(result.drop_one) + len(result.repeat_one)
    tokens = sum(map(len, sample.windows))
    flops = 2 * tokens * (result.layer_forwards * layer + heads * model.lm_head.weight.numel())
    peaks = {dtype: peak(dtype) for dtype in (torch.float32, model.dtype)}
    limit = flops / max(peaks.values())
    patient = base.operate(Plan.whole(base.depth)).model
    print(f"threads                        {torch.get_num_threads()}")
    for dtype, speed in peaks.items():
        print(f"{dtype!s:30} {speed / 1e9:8.1f} GFLOP/s")
    print(f"stored in {model.dtype}, computed in {compute_dtype(patient)}")
    print(f"scan: drop-one, repeat-one, …  {seconds:8.1f} s, first scores after {first[0]:.1f} s")
    print(f"its matrix products            {flops / 1e12:8.2f} TFLOP, {limit:.1f} s at the limit")
    print(f"scan / limit                   {seconds / limit:8.2f}")
