"""Which dtype work on many rows is computed in: as chosen, or as measured once on this machine.

The measurement is kept with the processor and the version of torch that it holds for. This module
needs no torch, so that `inspect` can name the dtype at once; `contexts` measures and converts.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

from surgery.errors import SurgeryError
from surgery.io.cache_folder import cache_folder
from surgery.io.json_cache import JsonCache

Choice = Literal["auto", "float32", "stored"]
CHOICES: tuple[str, ...] = get_args(Choice)
VARIABLE = "LAYER_SURGERY_COMPUTE_DTYPE"  # the choice, where `set_compute_dtype` made none
_HALVES = ("bfloat16", "float16")
_CLEARLY = 1.5  # times faster than the stored dtype, or it isn't worth the conversions
_CPUINFO = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # on x86 and Arm
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")  # on instructions
_MOST = 50  # remembered measurements
_chosen: str | None = None


def set_compute_dtype(choice: Choice | None) -> None:
    """Choose the dtype in which this process computes prompts, scores and training of models that
    are stored in bfloat16 or float16.

    “float32”, “stored”, or “auto”: float32 where a model is on a CPU that multiplies it clearly
    faster than the stored dtype. None returns to the environment variable
    `LAYER_SURGERY_COMPUTE_DTYPE`, or else “auto”. Raises `SurgeryError` for another value.
    """
    global _chosen
    if choice is not None:
        _check(choice, "The compute dtype")
    _chosen = choice


def compute_dtype_of(
    stored: str, converts: bool, on_cpu: bool, gain: Callable[[str], float | None]
) -> str | None:
    """The dtype for products of many rows, of weights stored in the dtype `stored`.

    Weights that can't be converted, as they are quantized, compute as stored. `gain(stored)` is how
    many times faster the CPU multiplies float32, if that is known. Returns None where it decides
    and isn't. Raises `SurgeryError` if the environment variable has a value that can't be chosen.
    """
    choice = _chosen or os.environ.get(VARIABLE, "auto")
    _check(choice, VARIABLE)
    if stored not in _HALVES or not converts or choice == "stored":
        return stored
    if choice == "float32":
        return "float32"
    if not on_cpu:
        return stored
    faster = gain(stored)
    if faster is None:
        return None
    return "float32" if faster > _CLEARLY else stored


def recall_gain(stored: str) -> float | None:
    """What `float32_gain` measured before on this processor with this version of torch, if
    anything."""
    gain = _measured().get(_key(stored))
    return gain if isinstance(gain, float) and gain > 0 else None


def remember_gain(stored: str, gain: float) -> None:
    """Keep a measurement for other processes."""
    _measured().put(_key(stored), gain)


def _check(choice: str, what: str) -> None:
    if choice not in CHOICES:
        raise SurgeryError(f"{what} is “{choice[:40]}”: it can be {', '.join(CHOICES)}.")


def _measured() -> JsonCache:
    return JsonCache(cache_folder() / "float32-gain", _MOST)


def _key(stored: str) -> str:
    from importlib.metadata import version  # takes longer to import than the rest of this file

    return f"{stored}, torch {version('torch')}, {_processor()}"


@cache
def _processor() -> str:
    """The processor's name, limits that are set for PyTorch, and, on Linux, its instructions: a
    virtual machine may hide some."""
    lines = []
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip():  # the next processor
                    break
                if line.partition("\t")[0].strip(" :") in _CPUINFO:
                    lines.append(line.strip())
    except OSError:
        pass
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if name in os.environ]
    return "; ".join([*(lines or [platform.processor(), platform.machine()]), *limits])
