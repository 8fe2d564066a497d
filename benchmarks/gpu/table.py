"""The table as text and as JSON, with the machine that it was made on."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .rows import Row

HEAD = "| row | state | here | beside | unit | here / beside | detail | seconds |"
RULE = "|---|---|--:|--:|---|--:|---|--:|"
_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "triton", "flash-attn")


def machine(device: torch.device) -> dict[str, str]:
    """Card, driver, versions and date."""
    facts = {"device": str(device), "date": time.strftime("%Y-%m-%d")}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        facts["card"] = f"{card.name}, {card.total_memory / 1e9:.0f} GB"
        facts["compute capability"] = f"{card.major}.{card.minor}"
        facts["driver"] = _driver()
        facts["runtime"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm"
    facts["processor"] = f"{_processor()}, {torch.get_num_threads()} threads"
    facts["Python"] = platform.python_version()
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts


def _driver() -> str:
    """The version of NVIDIA's driver, as the kernel module tells it; ROCm's is not asked for."""
    place = Path("/proc/driver/nvidia/version")
    if not place.is_file():
        return "unknown"
    words = place.read_text().splitlines()[0].split()
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def _processor() -> str:
    place = Path("/proc/cpuinfo")
    if place.is_file():
        for line in place.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def line(row: Row) -> str:
    """The row in Markdown."""
    result = row.result
    share = result.figure / result.anchor if result.figure is not None and result.anchor else None
    cells = (
        row.name,
        row.state,
        _number(result.figure),
        _number(result.anchor),
        result.unit,
        "" if share is None else f"{share:.2f}",
        result.detail.replace("|", "/"),
        f"{row.seconds:.1f}" if row.seconds else "",
    )
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def summary(rows: Iterable[Row]) -> str:
    """How many rows there are of each state."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def write_json(path: Path, facts: Mapping[str, str], rows: Iterable[Row]) -> None:
    """Write the table to a file."""
    listed = [
        {"name": row.name, "state": row.state, "seconds": row.seconds, **asdict(row.result)}
        for row in rows
    ]
    text = json.dumps({"machine": dict(facts), "rows": listed}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
