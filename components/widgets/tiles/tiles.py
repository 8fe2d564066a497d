"""Base and patient in numbers: layers, parameters, weights, KV cache, FLOPs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.widgets.html_component import LiveHTML
from surgery import Plan
from surgery.plan import COPY

if TYPE_CHECKING:
    from surgery import Base
    from surgery.known_base import KnownBase
    from surgery.preview import Preview

_WINDOW = 8192  # tokens for which the KV cache is spelled out
_COUNTS = ("", "k", "M", "B", "T")
_BYTES = ("B", "kB", "MB", "GB", "TB")
_NAMES = {"mlp": "MLP", "towers": "vision and audio towers"}


class Tiles(LiveHTML):
    """A row of tiles; the value is what `view` returns."""

    stem = "tiles"


def view(base: Base | KnownBase, plan: Plan, is_healed: bool = False) -> dict:
    """What the tiles show for a base and a plan; `is_healed` says that its patient is a healed one.
    Raises `SurgeryError` for a plan that is refused."""
    old, new = base.preview(Plan.whole(base.depth)), base.preview(plan)
    return {
        "error": "",
        "parameters": {"base": old.parameters, "patient": new.parameters},
        "tiles": [
            _tile(
                "Layers",
                "Decoder layers: the blocks that each token passes through in order.",
                f"{old.layers}",
                f"{new.layers}",
                "",
                plan.describe(),
                old.layers != new.layers,
            ),
            _tile(
                "Parameters",
                "Every weight counted once, even if it is used twice. The saved checkpoint has "
                "exactly as many.",
                *_scaled(old.parameters, new.parameters, _COUNTS),
                f"{new.parameters:,}{_change(old.parameters, new.parameters)}",
                old.parameters != new.parameters,
            ),
            _tile(
                f"Weights, {base.dtype}",
                "Size of the checkpoint on disk and in memory. Here the patient shares the base's "
                "weights: only layers that were initialised, repaired or healed have weights of "
                "their own.",
                *_scaled(old.bytes, new.bytes, _BYTES),
                _shared(plan, is_healed),
                old.bytes != new.bytes,
            ),
            _tile(
                "KV cache per token",
                "Memory per token of context: the keys and values that every layer stores. Below: "
                "the total for a context of that length.",
                *_cache(old.kv_bytes_per_token, new.kv_bytes_per_token),
                old.kv_bytes_per_token != new.kv_bytes_per_token,
            ),
            _tile(
                "FLOPs per token",
                "Floating-point operations of the matrix products for one token: two per weight "
                "used. Attention over the context is extra.",
                *_scaled(old.flops_per_token, new.flops_per_token, _COUNTS),
                _active(new)
                or _change(old.flops_per_token, new.flops_per_token)[3:]
                or "unchanged",
                old.flops_per_token != new.flops_per_token,
            ),
        ],
        "parts": _parts(old, new),
    }


def _tile(
    name: str, hint: str, before: str, after: str, unit: str, detail: str, changed: bool
) -> dict:
    return {
        "name": name,
        "hint": hint,
        "before": before,
        "after": after,
        "unit": unit,
        "detail": detail,
        "changed": changed,
    }


def _parts(old: Preview, new: Preview) -> dict:
    """Parameters by component, as shares of whichever of the two models is larger."""
    most = max(old.parameters, new.parameters)
    names = list(dict.fromkeys((*old.by_component, *new.by_component)))

    def bar(preview: Preview) -> list[dict]:
        return [
            {
                "part": name,
                "share": preview.by_component.get(name, 0) / most,
                "text": f"{_NAMES.get(name, name)}: {preview.by_component.get(name, 0):,}",
            }
            for name in names
        ]

    return {
        "base": bar(old),
        "patient": bar(new),
        "legend": [{"part": name, "text": _NAMES.get(name, name)} for name in names],
    }


def _shared(plan: Plan, is_healed: bool) -> str:
    if is_healed:
        return "shared, except for healed weights"
    own = sum(layer.init != COPY for layer in plan.layers)
    if not own:
        return "shares the base's memory"
    return f"shared, except in {own} layer{'s' if own > 1 else ''}"


def _active(preview: Preview) -> str:
    if preview.active_parameters == preview.parameters:
        return ""
    return f"{_worded(preview.active_parameters, _COUNTS)} parameters active"


def _change(old: float, new: float) -> str:
    return f" · {100 * (new - old) / old:+.1f} %".replace("-", "−") if old and old != new else ""


def _digits(value: float) -> int:
    """Decimals for four figures in all."""
    return 0 if value >= 1000 else 1 if value >= 100 else 2


def _scaled(old: float, new: float, units: tuple[str, ...]) -> tuple[str, str, str]:
    """Both numbers in the unit that suits the larger one, and that unit."""
    power = 0
    while max(old, new) >= 1000 ** (power + 1) and power + 1 < len(units):
        power += 1
    before, after = (
        f"{x:,}" if power == 0 else f"{x / 1000**power:.{_digits(x / 1000**power)}f}"
        for x in (old, new)
    )
    return before, after, units[power]


def _worded(number: float, units: tuple[str, ...]) -> str:
    """A number with its unit."""
    return " ".join(_scaled(number, number, units)[1:]).strip()


def _cache(old: int | None, new: int | None) -> tuple[str, str, str, str]:
    if old is None or new is None:
        return "unknown", "unknown", "", "this model's cache could not be inspected"
    at = f"{_worded(new * _WINDOW, _BYTES)} at {_WINDOW:,} tokens"
    return *_scaled(old, new, _BYTES), at
