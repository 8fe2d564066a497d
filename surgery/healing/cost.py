"""What a run will cost, before it begins: operations, hours, money, and memory by part.

Arithmetic over a preview, with published figures; all of it is an estimate and says so. Reads no
weights.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from surgery.devices import HEADROOM, accelerators, gigabytes, main_memory
from surgery.errors import SurgeryError
from surgery.plan import Plan

from .settings import Settings
from .text import writing_bytes
from .time_budget import training_share

if TYPE_CHECKING:
    from surgery.base import Base

MFU = 0.4  # share of the peak that training reaches on GPUs, if nothing else is known


@dataclass(frozen=True)
class Accelerator:
    """`peak`: dense bfloat16 FLOP/s as its maker states them. `price`: $ an hour for one, as
    clouds rent it; prices move, so give your own. `memory`: bytes."""

    peak: float
    price: float
    memory: float


ACCELERATORS: Mapping[str, Accelerator] = {
    "H100": Accelerator(989e12, 4.50, 80e9),
    "A100": Accelerator(312e12, 2.50, 80e9),
    "L40S": Accelerator(362e12, 1.80, 48e9),
    "L4": Accelerator(121e12, 0.80, 24e9),
}

#: What others' runs are said to have cost: (what, tokens, $). Both imply about 1.55e-17 $ per FLOP.
REFERENCES: tuple[tuple[str, float, float], ...] = (
    ("SOLAR 10.7B, continued pretraining after up-scaling", 1e12, 1e6),
    ("SOLAR 10.7B, Korean, continued pretraining", 2e11, 2e5),
)
SAVING = "Up-scaling is said to need up to 70 % less data than training from scratch."


@dataclass(frozen=True)
class CostEstimate:
    """An estimate. `flops` are 6·N·D of the patient, and 2·N·D of the teacher where there is one:
    an upper bound where layers are frozen. `memory` is bytes by part; `room` what is free for it
    here, None if it is for another machine."""

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
        """Here; None if that was not asked."""
        return None if self.room is None else self.bytes <= self.room * HEADROOM


def estimate_cost(
    base: Base,
    plan: Plan,
    settings: Settings,
    tokens: int | None = None,
    accelerator: str = "here",
    mfu: float = MFU,
    devices: int = 1,
    price: float | None = None,
) -> CostEstimate:
    """Estimate a run over `tokens` (None: what the settings' steps read, or as many as its minutes
    allow while it doesn't write) on `devices` accelerators.

    "here" is this machine, its speed measured by a matrix product, `mfu` of which is reached; else
    one of `ACCELERATORS`. `price` is in $ per device and hour. Raises `SurgeryError`.
    """
    if accelerator != "here" and accelerator not in ACCELERATORS:
        known = ", ".join(["here", *ACCELERATORS])
        raise SurgeryError(f"“{accelerator[:40]}” is no known accelerator: {known}.")
    if not 0 < mfu <= 1 or devices < 1:
        raise SurgeryError("The MFU lies between 0 and 1, and there is one device or more.")
    before, after = base.preview(Plan.whole(base.depth)), base.preview(plan)
    found = ACCELERATORS.get(accelerator)
    peak = found.peak if found else measured_peak(base)
    speed = peak * mfu * devices
    per_token = 6.0 * after.active_parameters
    if settings.objective == "distill":
        per_token += 2.0 * before.active_parameters
    minutes = None if tokens is not None else settings.minutes
    if minutes is not None:
        tokens = int(60 * minutes * training_share(settings) * speed / per_token)
    elif tokens is None:
        tokens = (settings.steps or 0) * settings.tokens_per_step
    flops = per_token * tokens
    hours = flops / (3600 * speed) if minutes is None else minutes / 60
    rent = price if price is not None else found.price if found else None
    room = int(found.memory * HEADROOM) if found else _room(base)
    return CostEstimate(
        tokens,
        after.parameters,
        trained_parameters(base, plan, settings),
        flops,
        hours,
        None if rent is None else rent * hours * devices,
        memory(base, plan, settings, devices),
        room,
    )


def memory(base: Base, plan: Plan, settings: Settings, devices: int = 1) -> dict[str, int]:
    """Bytes by part, on one device of several that share each batch.

    The base's weights are there once, for teacher and patient; what trains has a copy in float32,
    its gradients (4 bytes a parameter) and Adam's two moments (8 bytes). Activations are 34 bytes
    per token and unit of width in each layer from the lowest trained one up, in halves (arXiv
    2205.05198, attention's square left out, as fused kernels do), and the logits of both models.
    Before all that the base may write the text; what its cache takes beyond the rest is a part too.
    """
    from .student import chosen

    size = base.torch_dtype.itemsize
    trained = trained_parameters(base, plan, settings)
    text = base.anatomy.config.get_text_config(decoder=True)
    width = base.anatomy.model.get_input_embeddings().weight.shape[1]
    vocabulary = base.anatomy.model.get_input_embeddings().weight.shape[0]
    windows = -(-settings.batch // (devices * settings.accumulate))
    here = windows * settings.window
    above = len(plan) - min(chosen(plan, settings))
    inner = getattr(text, "intermediate_size", None) or 4 * width
    inner = max(inner) if isinstance(inner, (list, tuple)) else inner
    per_layer = here * (34 * width + 6 * max(0, inner - 4 * width)) * size // 2
    logits = here * vocabulary * 4 * (5 if settings.objective == "distill" else 3)
    weights = base.counts.total * size
    training = {
        "weights that train": trained * 4,
        "gradients": trained * 4,
        "moments": trained * 8,
        "activations": above * per_layer,
        "logits": logits,
    }
    writing = writing_bytes(base, settings) - sum(training.values())
    before = {"cache while it writes": writing} if writing > 0 else {}
    return {"weights of the base": weights, **training, **before}


def trained_parameters(base: Base, plan: Plan, settings: Settings) -> int:
    """How many numbers train."""
    from .student import chosen, linear_shapes

    positions = chosen(plan, settings)
    if settings.train == "lora":
        shapes = [s for p in positions for s in linear_shapes(base.anatomy, plan.sources[p])]
        return sum(settings.rank * (a + b) for a, b in shapes)
    sizes = [0] * base.depth
    for name, tensor in base.anatomy.tensors.items():
        if (where := base.anatomy.layer_of(name)) and tensor.is_floating_point():
            sizes[where[1]] += tensor.numel()
    return sum(sizes[plan.sources[p]] for p in positions)


def check_memory(base: Base, plan: Plan, settings: Settings) -> None:
    """Raise `SurgeryError` if a run can't fit on this machine. What the base has in memory already
    is not counted twice."""
    parts, room = memory(base, plan, settings), _room(base)
    if sum(parts.values()) > room * HEADROOM:
        shown = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items())
        raise SurgeryError(
            f"Healing would need about {gigabytes(sum(parts.values()))} ({shown}), and "
            f"{gigabytes(room)} are free. Choose a smaller batch or window, more parts to "
            "accumulate, fewer layers, or LoRA."
        )


def _room(base: Base) -> int:
    device = base.device
    rooms = [room for room in accelerators() if room.device == device] or [main_memory()]
    here = base.counts.total * base.torch_dtype.itemsize if base.is_loaded else 0
    return rooms[0].free + here


def measured_peak(base: Base, seconds: float = 0.2) -> float:
    """FLOP/s of matrix products of this machine in the base's dtype: about `seconds` of them."""
    device = torch.device(base.device)
    kind = torch.bfloat16 if base.torch_dtype.itemsize == 2 else torch.float32
    a = torch.ones(1024, 1024, dtype=kind, device=device)
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < seconds or not best:
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = max(best, 2 * 1024**3 / (time.perf_counter() - start))
    return best
