"""What counting every weight costs, beside torch.histc, numpy.histogram and reading the bytes.

Everything runs on one thread unless it says otherwise; each figure is the best of several rounds
in which all take turns, so that whatever else the machine does falls on all of them alike.
"""

import os
import subprocess
import time

import numpy as np
import torch

from surgery import Base, Plan
from surgery.sources import Tensor
from surgery.weight_stats import Picture, count_tensor
from surgery.weight_stats.cache import forget, survey_base
from surgery.weight_stats.counting import count_stored
from surgery.weight_stats.survey import take

ROUNDS = 7
VALUES = 1 << 25
BINS = 256


def best(works: dict, rounds: int = ROUNDS) -> dict:
    """Seconds that each takes at best; they take turns."""
    taken = {name: float("inf") for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name] = min(taken[name], time.perf_counter() - start)
    return taken


def show(heading: str, taken: dict, values: int, against: str) -> None:
    """A table with the time for a value, and how many times `against` that is."""
    print(f"\n{heading}\n{'':44s}  ns a value      GB/s   times")
    for name, seconds in taken.items():
        speed = 2 * values / seconds / 1e9
        ratio = seconds / taken[against]
        print(f"{name:44s} {seconds / values * 1e9:11.2f} {speed:9.2f} {ratio:7.2f}")


def in_memory() -> None:
    """A bfloat16 and a float16 tensor of 33 million values."""
    for dtype in (torch.bfloat16, torch.float16):
        tensor = (torch.randn(VALUES) * 0.02).to(dtype)
        wide = tensor.float()
        ours = "count all 65,536 values"
        taken = best(
            {
                ours: lambda tensor=tensor: count_tensor(tensor),
                f"torch.histc, {BINS} bins": lambda tensor=tensor: torch.histc(
                    tensor.float(), BINS, -0.15, 0.15
                ),
                f"torch.histc, {BINS} bins, float32 already": lambda wide=wide: torch.histc(
                    wide, BINS, -0.15, 0.15
                ),
                f"numpy.histogram, {BINS} bins, float32 already": lambda wide=wide: np.histogram(
                    wide.numpy(), BINS, range=(-0.15, 0.15)
                ),
            }
        )
        show(f"In memory, {dtype}, {VALUES:,} values, one thread", taken, VALUES, ours)


def from_file() -> None:
    """The bundled model's file, in the system's cache, beside reading its bytes."""
    base = Base.open("bundled")
    folder, stored = base.stored()
    files = sorted({tensor.file for tensor in stored.values()})
    cat = f"cat {' '.join(files)} > /dev/null"
    values = sum(t.end - t.start for t in stored.values()) // 2
    whole: list[Tensor] = list(stored.values())
    works = {
        cat: lambda: subprocess.run(["sh", "-c", cat], cwd=folder, check=True),
        "count, one thread": lambda: count_stored(folder, whole),
        f"count by layer and kind, {os.cpu_count()} threads": lambda: take(base),
    }
    show(f"From a file, {base.name}, in the system's cache", best(works), values, cat)
    if hasattr(os, "posix_fadvise"):
        cold = best({k: lambda w=w: (_forget(folder, files), w())[1] for k, w in works.items()}, 3)
        show("From a file, from the disk", cold, values, cat)


def _forget(folder, files: list[str]) -> None:
    """Have the system drop what it keeps of the files in memory."""
    for name in files:
        with open(folder / name, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def looks() -> None:
    """What the page waits for."""
    base = Base.open("bundled")
    forget(base)
    survey = survey_base(base)
    plan = Plan.parse("0:13, 17:20, 17:30, 29@identity", base.depth)

    def rearranged() -> Picture:
        picture = survey.picture(plan)
        for position in range(len(plan)):
            picture.layer(position).histogram(np.linspace(-1, 1, 97))
        return picture

    taken = best(
        {
            "first picture from a sample": lambda: take(base, sample=True),
            "every weight": lambda: take(base),
            "a second look": lambda: survey_base(base),
            "a plan's picture, no weight read": rearranged,
        }
    )
    print(f"\n{base.name}, {survey.values:,} values, ms")
    for name, seconds in taken.items():
        print(f"{name:44s} {1000 * seconds:11.2f}")


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    in_memory()
    from_file()
    looks()
