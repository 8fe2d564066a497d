"""Choose the best device that has room for a model's weights, before anything is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from surgery.errors import BaseError

if TYPE_CHECKING:
    import torch

# What a device needs beside the weights: activations, caches, the framework's own buffers.
HEADROOM = 0.9
_caches: list[Callable[[], None]] = []  # functions that drop them
_hidden = False  # are accelerators?


@dataclass(frozen=True)
class Room:
    """A device and the bytes that are free on it."""

    device: str
    free: int


def accelerators() -> list[Room]:
    """CUDA devices (ROCm included), most free memory first, or Apple's GPU, or none.

    A process of a distributed run (torchrun, `accelerate launch`) gets only its own.
    """
    if _hidden:
        return []
    import torch  # takes a second: asking for main memory must not

    if torch.cuda.is_available():
        numbers: Sequence[int] = range(torch.cuda.device_count())
        mine = os.environ.get("LOCAL_RANK", "")
        if os.environ.get("WORLD_SIZE", "1") != "1" and mine.isdigit() and int(mine) in numbers:
            numbers = [int(mine)]
        rooms = [Room(f"cuda:{i}", free) for i in numbers if (free := _free_on_cuda(i))]
        return sorted(rooms, key=lambda room: -room.free)
    if torch.backends.mps.is_available():
        used = torch.mps.driver_allocated_memory()
        return [Room("mps", torch.mps.recommended_max_memory() - used)]
    return []


def _free_on_cuda(index: int) -> int:
    """Free bytes of a CUDA device, those included that PyTorch holds and would give back before it
    runs out. 0 for a device that can't be used."""
    import torch

    try:
        free, _ = torch.cuda.mem_get_info(index)
    except RuntimeError:  # another program has all of its memory, or has it to itself
        return 0
    held = torch.cuda.memory_stats(index)  # empty before this process uses the device
    reserved, allocated, split = (
        held.get(f"{what}.all.current", 0)
        for what in ("reserved_bytes", "allocated_bytes", "inactive_split_bytes")
    )
    return free + max(0, reserved - allocated - split)


def free_on(device: torch.device) -> int:
    """Free bytes on one device: of main memory for the CPU, 0 for one that isn't there."""
    if device.type == "cpu":
        return main_memory().free
    rooms = {room.device: room.free for room in accelerators()}
    return rooms.get(str(device), rooms.get(device.type, 0))


def release_unused() -> None:
    """Give memory that PyTorch holds on accelerators, and nothing uses, back to their drivers, for
    other programs and for tensors of other sizes."""
    torch = sys.modules.get("torch")
    if torch is None or _hidden:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def hide_accelerators(hidden: bool = True) -> None:
    """Let this process have no accelerators, although PyTorch may say that it has, or again those
    that there are."""
    global _hidden
    _hidden = hidden


@contextmanager
def accelerators_shown() -> Iterator[None]:
    """Undo `hide_accelerators` during the block."""
    global _hidden
    before, _hidden = _hidden, False
    try:
        yield
    finally:
        _hidden = before


def share_processors(among: int) -> None:
    """Limit what this thread computes to its share of the processors, if `among` several threads
    compute."""
    import torch

    wanted = max(1, (os.cpu_count() or 1) // max(1, among))
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)


def register_cache(drop: Callable[[], None]) -> None:
    """Count a cache as free memory: `drop` empties it whenever free main memory is asked for."""
    _caches.append(drop)


def main_memory() -> Room:
    """Free main memory, within the limit that a container may set. Caches that nothing uses are
    dropped first."""
    for drop in _caches:
        drop()
    free = psutil.virtual_memory().available
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return Room("cpu", max(0, free))


def choose(
    size: int, gpus: list[Room], cpu: Room, copied: int | None = None, advice: str = ""
) -> tuple[str, ...]:
    """The devices for `size` bytes of weights: one GPU, else several, else the CPU.

    Several names mean that the layers are spread over all of them. On the CPU, `copied` of the
    bytes have to fit in memory: all unless given. Raises `BaseError`, which ends with `advice`, if
    the weights fit nowhere.
    """
    if found := fitting(size, gpus):
        return found
    needed = size if copied is None else copied
    if needed <= cpu.free * HEADROOM:
        return (cpu.device,)
    places = ", ".join(f"{gigabytes(r.free)} on {r.device}" for r in (*gpus, cpu))
    raise BaseError(
        f"The weights need {gigabytes(needed)}; available: {places}. Close other programs, choose "
        "a smaller model, or use a machine with more memory; previews and saving work without "
        f"them.{advice}"
    )


def fitting(size: int, gpus: Sequence[Room]) -> tuple[str, ...]:
    """The GPUs that `size` bytes of weights go to: the first one, else all of them; none if they
    don't fit there."""
    if gpus and size <= gpus[0].free * HEADROOM:
        return (gpus[0].device,)
    if len(gpus) > 1 and size <= sum(room.free for room in gpus) * HEADROOM:
        return tuple(room.device for room in gpus)
    return ()


def gigabytes(size: float) -> str:
    """A size for a message."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
