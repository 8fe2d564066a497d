"""Read a link's address, and draw its QR code.

An address may come from anyone, so nothing in it is trusted: values of the wrong kind are left out,
and base and plan pass the same checks as if they were typed. The QR code is drawn as a path for the
browser, so that no other server is asked for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import segno

from components.services.deployment import Deployment

SETTINGS = ("greedy", "chat", "tokens", "seed", "temperature", "top_p")
_LONGEST_SPEC = 500
_LONGEST_PLAN = 20_000
_QR_HOLDS = 2300  # characters at its lowest level of error correction


@dataclass(frozen=True)
class Wanted:
    """What a link describes. Empty or None where it has no usable value."""

    base: str = ""
    plan: str = ""
    prompt: str | None = None
    settings: Mapping[str, Any] | None = None


def read(query: Mapping[str, str], deployment: Deployment) -> Wanted:
    """Read an address's query."""
    base = str(query.get("base", "")).strip()
    # Windows would log in to a server that is named like that.
    if len(base) > _LONGEST_SPEC or base.removeprefix("config:").startswith(("\\\\", "//")):
        base = ""
    plan = str(query.get("plan", ""))
    prompt = query.get("prompt")
    return Wanted(
        base,
        plan if len(plan) <= _LONGEST_PLAN else "",
        str(prompt) if prompt is not None and len(prompt) <= deployment.max_prompt else None,
        _settings(query, deployment.max_new_tokens),
    )


def _settings(query: Mapping[str, str], most_tokens: int) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in ("greedy", "chat"):
        if query.get(name) in ("0", "1"):
            settings[name] = query[name] == "1"
    ranges = {
        "tokens": (8, most_tokens),
        "seed": (0, 2**53),
        "temperature": (0.1, 2.0),
        "top_p": (0.05, 1.0),
    }
    for name, (least, most) in ranges.items():
        try:
            value = float(query.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(value) and least <= value <= most:
            settings[name] = value if isinstance(least, float) else int(value)
    return settings


def code(address: str) -> dict:
    """A QR code (ISO/IEC 18004) as {address, size, path}: `path` draws its dark squares into a
    square of `size`, with the quiet zone of 4 that readers need."""
    if not address.startswith(("http://", "https://")) or len(address) > _QR_HOLDS:
        return {"address": address[:_QR_HOLDS], "size": 0, "path": ""}
    drawn = segno.make(address, error="l", micro=False)
    runs = []
    for y, row in enumerate(drawn.matrix):
        runs += [f"M{x + 4} {y + 4}h1v1h-1z" for x, dark in enumerate(row) if dark]
    return {"address": address, "size": len(drawn.matrix) + 8, "path": "".join(runs)}
