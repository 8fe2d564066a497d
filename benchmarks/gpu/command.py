"""The command: run the checks one after another, print each row as it comes, write the JSON."""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers.utils import logging

from surgery import set_compute_dtype
from surgery.errors import one_line
from surgery.memory import devices

from . import fast, right, table
from .rows import Check, NotRun, Result, Row, state_of
from .workplace import Workplace

_SECONDS = 840.0  # a rented card's quarter of an hour, with a minute to spare


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it, and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Print the table. Returns 1 if something in it is wrong, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description="What is right, and how fast, on a GPU."
    )
    parser.add_argument("--device", choices=("cuda", "cpu", "mps"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models instead of 1B and 7B")
    parser.add_argument("--base", default="bundled", help="a base with real weights to compare")
    parser.add_argument("--json", type=Path, help="write the table to this file, too")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="parts of names")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="begin no row later")
    options = parser.parse_args(arguments)
    if (device := _device(options.device)) is None:
        parser.error(f"there is no {options.device} device here; --device cpu --tiny runs anywhere")
    checks = [
        check
        for check in (*right.CHECKS, *fast.CHECKS)
        if not options.only or any(name in check.name for name in options.only)
    ]
    if not checks:
        parser.error(f"no row is called {' or '.join(options.only)}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    facts = table.machine(device)
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), "\n", sep="\n")
    print(table.HEAD, table.RULE, sep="\n", flush=True)
    rows = []
    try:
        for row in _rows(checks, device, options):
            print(table.line(row), flush=True)
            rows.append(row)
    finally:
        if options.json:
            table.write_json(options.json, facts, rows)
    print(f"\n{table.summary(rows)}")
    return int(any(row.is_wrong for row in rows))


def _device(kind: str) -> torch.device | None:
    """The device with most room of this kind; None if there is none. Hides all others."""
    if kind == "cpu":
        devices.hide_accelerators()
        return torch.device("cpu")
    rooms = [room for room in devices.accelerators() if room.device.startswith(kind)]
    if not rooms:
        return None
    if kind == "cuda":
        torch.cuda.set_device(rooms[0].device)
    return torch.device(rooms[0].device if kind == "cuda" else f"{kind}:0")


def _rows(
    checks: Sequence[Check], device: torch.device, options: argparse.Namespace
) -> Iterator[Row]:
    """Run them in a folder that is removed at the end, computing as stored: what is compared should
    differ in nothing else."""
    begun = time.monotonic()
    set_compute_dtype("stored")
    gc.collect()
    gc.freeze()  # each row collects its garbage, and need not look through what was imported
    with tempfile.TemporaryDirectory(prefix="surgery-gpu-") as name:
        place = Workplace(device, options.tiny, Path(name), options.base)
        for check in checks:
            if time.monotonic() - begun > options.seconds:
                yield Row(check.name, "not run", Result(detail=f"{options.seconds:.0f} s are over"))
                continue
            yield _row(check, place)
    set_compute_dtype(None)
    devices.hide_accelerators(False)


def _row(check: Check, place: Workplace) -> Row:
    started = time.monotonic()
    try:
        result = check.run(place)
        return Row(check.name, state_of(result, place.tiny), result, time.monotonic() - started)
    except NotRun as reason:
        return Row(check.name, "not run", Result(detail=str(reason)))
    except Exception as error:  # a failed row, and on to the next
        detail = f"{type(error).__name__}: {one_line(error, 160)}"
        return Row(check.name, "failed", Result(detail=detail), time.monotonic() - started)
    finally:
        place.release()
