"""What the checks share: the device, models made when they are first asked for, memory, time."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from surgery import Base, Plan, SurgeryError
from surgery.memory import devices
from surgery.patient import Patient

from .models import config_of, size_of, write_random
from .rows import NotRun

_SPARE = 2 << 30  # bytes of disk that are left alone


@dataclass
class Workplace:
    """`reference` is the base that the user named, or the bundled one if it is at hand."""

    device: torch.device
    tiny: bool
    folder: Path
    reference: str = "bundled"
    _bases: dict[str, Base] = field(default_factory=dict)
    _made: dict[object, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------ models

    def checkpoint(self, shape: str, dtype: torch.dtype = torch.bfloat16) -> Path:
        """The folder with random weights of a shape. Raises `NotRun` if there is no room."""
        name = f"{shape}-{str(dtype).removeprefix('torch.')}"
        if not (folder := self.folder / name).exists():
            size = size_of(shape, self.tiny) * dtype.itemsize // 2
            if shape != "small":
                self.forget()
            self.need_memory(size)
            if psutil.disk_usage(str(self.folder)).free < size + _SPARE:
                raise NotRun(f"needs {(size + _SPARE) / 1e9:.0f} GB of free disk")
            write_random(folder, config_of(shape, self.tiny), dtype, str(self.device))
            self.release()
        return folder

    def base(self, shape: str, dtype: torch.dtype = torch.bfloat16) -> Base:
        """The base of a shape, loaded on the device. One of the large shapes is kept at a time."""
        folder = str(self.checkpoint(shape, dtype))
        if folder not in self._bases:
            if shape != "small":
                self.forget()
                self.need_memory(size_of(shape, self.tiny))
            self._bases[folder] = on_device(Base.open(folder), self.device)
        return self._bases[folder]

    def plain(self, folder: Path, dtype: torch.dtype | str = "auto") -> PreTrainedModel:
        """A checkpoint as transformers alone loads it."""
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map={"": str(self.device)}, local_files_only=True
        ).eval()

    def referred(self) -> Base:
        """The base that the user named. Raises `NotRun` if it can't be had."""
        try:
            return on_device(Base.open(self.reference), self.device)
        except SurgeryError as error:
            raise NotRun(f"{self.reference} is not at hand: {error}") from error

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """What `make` gives, made when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def patient(self, base: Base, plan: Plan) -> Patient:
        """Operate. Every check of patients asks here, so that a test can hand out a wrong one."""
        return base.operate(plan)

    def forget(self) -> None:
        """Let go of the large models."""
        for folder in [name for name in self._bases if not Path(name).name.startswith("small-")]:
            del self._bases[folder]
        self.release()

    @contextmanager
    def fresh_cache(self) -> Iterator[None]:
        """While this lasts, what was measured before is unknown."""
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as name,
            mock.patch.dict(os.environ, LAYER_SURGERY_CACHE=name),
        ):
            yield

    # ------------------------------------------------------------------ memory and time

    def need_memory(self, size: int) -> None:
        """Raise `NotRun` unless the device has room for so many bytes of weights."""
        free = devices.free_on(self.device)
        if size > free * devices.HEADROOM:
            raise NotRun(f"needs {size / 1e9:.0f} GB on {self.device}, {free / 1e9:.0f} are free")

    def release(self) -> None:
        """Collect garbage, and give back what PyTorch holds for later."""
        gc.collect()
        devices.release_unused()

    def allocated(self) -> int:
        """Bytes that tensors take: on CUDA as its allocator counts them, else those of all tensors
        that Python knows."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return torch.cuda.memory_allocated(self.device)
        storages = {}
        for thing in gc.get_objects():
            # A subclass may be a tensor without memory, such as a FakeTensor.
            if type(thing) in (torch.Tensor, torch.nn.Parameter) and self._here(thing):
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        return sum(storages.values())

    def _here(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == self.device.type

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def clock(self, work: Callable[[], Any]) -> float:
        """Seconds that `work` takes, until the device is done with it."""
        self.synchronise()
        begun = time.perf_counter()
        work()
        self.synchronise()
        return time.perf_counter() - begun

    def best(self, work: Callable[[], Any], times: int = 3) -> float:
        """The least of some times, after one that warms up."""
        work()
        return min(self.clock(work) for _ in range(times))

    def ids(self, length: int, batch: int = 1) -> torch.Tensor:
        """Random tokens, (batch, length), within the smallest vocabulary."""
        random = torch.Generator().manual_seed(0)
        return torch.randint(1, 200, (batch, length), generator=random).to(self.device)


def on_device(base: Base, device: torch.device) -> Base:
    """The base, loaded on the device, though another GPU may have more room. Raises `NotRun` if it
    is elsewhere."""
    names = (str(device), device.type)  # Apple's GPU has no number
    rooms = [room for room in devices.accelerators() if room.device in names]
    with mock.patch("surgery.loading.accelerators", lambda: rooms):
        there = base.load().device
    if there != device:
        raise NotRun(f"the weights were put on {there}")
    return base


@contextmanager
def on_the_cpu(folder: Path) -> Iterator[Base]:
    """Another base of the same files, loaded on the CPU; accelerators are hidden meanwhile."""
    devices.hide_accelerators()
    try:
        base = Base(Base.open(str(folder)).source)
        base.load()
        yield base
    finally:
        devices.hide_accelerators(False)
