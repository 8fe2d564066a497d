"""Estimates of what a run costs: operations, hours, money, and memory by part.

Arithmetic over a preview, with published figures. Reads no weights.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from surgery import numbers
from surgery.architecture.inspect.layer_list import embedding_table
from surgery.errors import SurgeryError
from surgery.memory.devices import HEADROOM, free_on, gigabytes
from surgery.plan import Plan

from .own_text import writing_bytes
from .settings import Settings
from .start import check_one_base
from .time_budget import training_share

if TYPE_CHECKING:
    from surgery.base import Base

MFU = 0.4  # share of the peak speed that training typically reaches on GPUs, and in halves
MFU_FLOAT32 = 0.8  # the same for float32 on a CPU, measured (docs/explanation/repair.md)


@dataclass(frozen=True)
class Accelerator:
    """`peak`: dense bfloat16 FLOP/s as its maker states them. `price`: $ per hour, a round figure
    of what clouds charge; prices move, so give your own. `memory`: bytes."""

    peak: float
    price: float
    memory: float


ACCELERATORS: Mapping[str, Accelerator] = {
    "H100": Accelerator(989e12, 4.50, 80e9),
    "A100": Accelerator(312e12, 2.50, 80e9),
    "L40S": Accelerator(362e12, 1.80, 48e9),
    "L4": Accelerator(121e12, 0.80, 24e9),
}

#: Published costs of other runs: (run, tokens, $). Both imply about 1.55e-17 $ per FLOP.
REFERENCES: tuple[tuple[str, float, float], ...] = (
    ("SOLAR 10.7B, continued pretraining after up-scaling", 1e12, 1e6),
    ("SOLAR 10.7B, Korean, continued pretraining", 2e11, 2e5),
)
_FRESH = 30.0  # seconds for which a measured speed is used again
_peaks: dict[tuple[str, torch.dtype], tuple[float, float]] = {}  # speed and time, by device, dtype
SAVING = "Up-scaling is reported to need up to 70 % less data than training from scratch."


@dataclass(frozen=True)
class CostEstimate:
    """An estimate. `flops` are 6·N·D of the patient, and 2·N·D of the teacher if there is one: an
    upper bound where layers are frozen. `memory` is bytes by part, `room` the bytes that are free
    for it; None if that is unknown."""

    tokens: int
    parameters: int
    trained: int
    flops: float
    hours: float
    dollars: float | None
    memory: Mapping[str, int]
    room: int | None

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool | None:
        """Does it fit in memory? None if the room is unknown."""
        return None if self.room is None else self.bytes <= self.room * HEADROOM


def estimate_cost(
    base: Base,
    plan: Plan,
    settings: Settings,
    tokens: int | None = None,
    accelerator: str = "here",
    mfu: float | None = None,
    devices: int = 1,
    price: float | None = None,
    repair: float = 0.0,
) -> CostEstimate:
    """Estimate a run over `tokens` on `devices` accelerators. If `tokens` is None, they follow from
    the settings' steps, or from the part of its minutes that is spent training.

    `accelerator` is one of `ACCELERATORS`, or "here" for this machine, whose peak speed is measured
    with a matrix product. A share `mfu` of the peak is assumed to be reached: `MFU`, or
    `MFU_FLOAT32` for float32 on this machine's CPU. `price` is in $ per device and hour. `repair`
    is the share of the minutes that a repair takes first. Raises `SurgeryError`, and `Refused` for
    a stack of several bases.
    """
    check_one_base(base)
    if accelerator != "here" and accelerator not in ACCELERATORS:
        names = numbers.listed(["here", *ACCELERATORS])
        raise SurgeryError(f"“{accelerator[:40]}” is not a known accelerator: choose {names}.")
    if mfu is None:
        here = accelerator == "here" and torch.device(base.device).type == "cpu"
        mfu = MFU_FLOAT32 if here and base.compute_dtype == "float32" else MFU
    if not 0 < mfu <= 1 or devices < 1:
        raise SurgeryError("The MFU must be above 0 and at most 1, with one device or more.")
    before, after = base.preview(Plan.whole(base.depth)), base.preview(plan)
    hardware = ACCELERATORS.get(accelerator)
    peak = hardware.peak if hardware else measured_peak(base)
    computed = None if hardware else base.compute_dtype
    speed = peak * mfu * devices
    per_token = 6.0 * after.active_parameters
    if settings.objective == "distill":
        per_token += 2.0 * before.active_parameters
    minutes = None if tokens is not None else settings.minutes
    if minutes is not None:
        tokens = int(60 * minutes * training_share(settings, repair) * speed / per_token)
    elif tokens is None:
        tokens = (settings.steps or 0) * settings.tokens_per_step
    flops = per_token * tokens
    hours = flops / (3600 * speed) if minutes is None else minutes / 60
    rent = price if price is not None else hardware.price if hardware else None
    free = int(hardware.memory) if hardware else room(base)
    return CostEstimate(
        tokens,
        after.parameters,
        trained_parameters(base, plan, settings),
        flops,
        hours,
        None if rent is None else rent * hours * devices,
        memory(base, plan, settings, devices, computed),
        free,
    )


def memory(
    base: Base, plan: Plan, settings: Settings, devices: int = 1, computed: str | None = None
) -> dict[str, int]:
    """Bytes by part, on one device of several that share each batch. `computed` is the name of the
    dtype of computation, by default the one that the weights are stored in.

    Teacher and patient share the base's weights. Each trained parameter has a float32 copy, its
    gradient (4 bytes) and Adam's two moments (8 bytes); where weights in a half are computed in
    float32, all have one. Activations take 34 bytes per token and unit of width in each layer from
    the lowest trained one up, in half precision (arXiv 2205.05198, without attention's quadratic
    term, which fused kernels avoid), plus the logits of both models. If the base writes the text
    first, what its KV cache takes beyond all this is a part too.
    """
    from .student import trained_layers

    stored = base.torch_dtype.itemsize
    size = torch.float32.itemsize if computed == "float32" else stored
    trained = trained_parameters(base, plan, settings)
    vocabulary = base.known_tokens
    width, inner = widths(base)
    windows = -(-settings.batch // (devices * settings.accumulate))
    here = windows * settings.window
    above = len(plan) - min(trained_layers(plan, settings))
    per_layer = here * (34 * width + 6 * max(0, inner - 4 * width)) * size // 2
    logits = here * vocabulary * 4 * (5 if settings.objective == "distill" else 3)
    copies = base.counts.total * size if size > stored else 0
    training = {
        **({"float32 copies": copies} if copies else {}),
        "trained weights": trained * 4,
        "gradients": trained * 4,
        "optimizer states": trained * 8,
        "activations": above * per_layer,
        "logits": logits,
    }
    # The copies and the student are there while the base writes as well.
    there = copies + training["trained weights"]
    writing = writing_bytes(base, settings) * size // stored + there - sum(training.values())
    before = {"cache for writing": writing} if writing > 0 else {}
    return {"weights of the base": base.counts.total * stored, **training, **before}


def widths(base: Base) -> tuple[int, int]:
    """(width of the hidden states, width within the MLP: the widest where layers differ)."""
    text = base.anatomy.config.get_text_config(decoder=True)
    width = embedding_table(base.anatomy.model).shape[1]
    inner = getattr(text, "intermediate_size", None) or 4 * width
    return width, max(inner) if isinstance(inner, (list, tuple)) else inner


def trained_parameters(base: Base, plan: Plan, settings: Settings) -> int:
    """Number of trained parameters, adapters included."""
    from .student import linear_shapes, trained_layers

    positions = trained_layers(plan, settings)
    if settings.train == "lora":
        shapes = [s for p in positions for s in linear_shapes(base.anatomy, plan.sources[p])]
        return sum(settings.rank * (a + b) for a, b in shapes)
    sizes = [0] * base.depth
    for name, tensor in base.anatomy.tensors.items():
        if (where := base.anatomy.layer_of(name)) and tensor.is_floating_point():
            sizes[where[1]] += tensor.numel()
    return sum(sizes[plan.sources[p]] for p in positions)


def check_memory(base: Base, plan: Plan, settings: Settings) -> None:
    """Raise `SurgeryError` if a run doesn't fit on this machine. Weights that are loaded already
    are not counted twice."""
    parts, free = memory(base, plan, settings, computed=base.compute_dtype), room(base)
    if sum(parts.values()) > free * HEADROOM:
        shown = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items())
        raise SurgeryError(
            f"Healing would need about {gigabytes(sum(parts.values()))} ({shown}), and "
            f"{gigabytes(free)} are free. Choose a smaller batch size or sequence length, more "
            "gradient accumulation, fewer layers, or LoRA."
        )


def room(base: Base) -> int:
    """Bytes that a run may take where the base lies, its weights included."""
    here = base.counts.total * base.torch_dtype.itemsize if base.is_loaded else 0
    return free_on(torch.device(base.device)) + here


def measured_peak(base: Base, seconds: float = 0.2) -> float:
    """FLOP/s of this machine's matrix products in the dtype that the base is trained in, measured
    for some `seconds`, unless they were in the last half minute."""
    device = torch.device(base.device)
    half = base.torch_dtype.itemsize == 2 and base.compute_dtype != "float32"
    kind = torch.bfloat16 if half else torch.float32
    key = (str(device), kind)
    measured, when = _peaks.get(key, (0.0, 0.0))
    if not measured or time.monotonic() - when > _FRESH:
        measured = _measured(device, kind, seconds)
        _peaks[key] = measured, time.monotonic()
    return measured


def _measured(device: torch.device, kind: torch.dtype, seconds: float) -> float:
    # On an accelerator, enough that starting them and waiting for the result take no time beside.
    size, times = (1024, 1) if device.type == "cpu" else (4096, 8)
    a = torch.ones(size, size, dtype=kind, device=device)
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < seconds or not best:
        start = time.perf_counter()
        for _ in range(times):
            product = a @ a
        float(product[0, 0])
        best = max(best, times * 2 * size**3 / (time.perf_counter() - start))
    return best
