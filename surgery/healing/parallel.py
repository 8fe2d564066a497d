"""One run over several processes: accelerate's setup, and agreement between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from surgery.architecture.apply.several_devices import devices_of
from surgery.base import Base
from surgery.errors import BaseError, SurgeryError

from .settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(base: Base, settings: Settings) -> Accelerator:
    """The accelerator of this process. Raises `SurgeryError` if a batch can't be split evenly, or
    the launcher was given settings that healing doesn't support."""
    from accelerate import Accelerator

    if len(places := devices_of(base.model)) > 1:
        raise SurgeryError(
            f"The weights of {base.name} are spread over {len(places)} devices, and healing needs "
            "them on one: heal a smaller model, or use a GPU with more memory."
        )
    # A process alone trains where the weights are, which need not be accelerate's first GPU.
    launched = os.environ.get("WORLD_SIZE", "1") != "1"
    accelerator = Accelerator(cpu=base.device == "cpu", device_placement=launched)
    parts = accelerator.num_processes * settings.accumulate
    if settings.batch % parts:
        raise SurgeryError(
            f"A batch of {settings.batch:,} sequences can't be split evenly into {parts:,} parts "
            "(processes times gradient accumulation)."
        )
    weights = base.model.device
    if accelerator.device.type != weights.type:
        raise BaseError(f"The weights are on {weights}, and training would be elsewhere.")
    fsdp = getattr(accelerator.state, "fsdp_plugin", None)
    if fsdp is not None:
        if getattr(fsdp, "fsdp_version", 1) != 2:
            raise SurgeryError("Healing supports FSDP version 2 only: add --fsdp_version 2.")
        fsdp.cpu_ram_efficient_loading = False  # every process has the base already
    return accelerator


def from_main(accelerator: Accelerator, number: int) -> int:
    """The main process's number, in every process."""
    if accelerator.num_processes == 1:
        return number
    from accelerate.utils import broadcast

    tensor = torch.tensor([number], device=accelerator.device)
    return int(broadcast(tensor, from_process=0))
