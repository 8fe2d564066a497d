"""The patient in numbers: layers, parameters, weights, KV cache, compute; before and after.

Knows how numbers are worded for people. What they are comes from the preview, which is exact.
"""

from __future__ import annotations

from surgery import Plan, SurgeryError
from surgery.preview import Preview

from .live import LiveHTML

_WINDOW = 8192  # tokens for which the KV cache is spelled out
_NAMES = {"mlp": "MLP", "experts": "experts", "norms": "norms", "head": "head"}


class Tiles(LiveHTML):
    """A row of tiles; the value is what `view` returns."""

    stem = "tiles"


def view(base, plan: Plan) -> dict:
    """What the tiles show for a base (a `surgery.Base`) and a plan, or a reason why they can't."""
    try:
        old, new = base.preview(Plan.whole(base.depth)), base.preview(plan)
    except SurgeryError as error:
        return {"error": str(error)}
    return {
        "error": "",
        "tiles": [
            _tile(
                "Layers",
                "Decoder layers: the blocks that a token passes through one after the other.",
                f"{old.layers}",
                f"{new.layers}",
                plan.describe(),
            ),
            _tile(
                "Parameters",
                "Weights of the model, each counted once even where it is used twice. The saved "
                "checkpoint has exactly as many.",
                _short(old.parameters),
                _short(new.parameters),
                f"{new.parameters:,}{_change(old.parameters, new.parameters)}",
            ),
            _tile(
                f"Weights, {base.dtype}",
                "Bytes that the checkpoint takes on disk and in memory. The patient here shares "
                "the base's weights and takes none of its own.",
                *_sizes(old.bytes, new.bytes),
                "shared with the base: + 0 MB here",
            ),
            _tile(
                "KV cache per token",
                "Memory that each token of a conversation takes: the keys and values that every "
                "layer remembers.",
                *_cache(old.kv_bytes_per_token, new.kv_bytes_per_token),
            ),
            _tile(
                "Compute per token",
                "Floating-point operations of the matrix products for one token, two for each "
                "weight that it passes through. Attention over the context comes on top.",
                *_sizes(old.flops_per_token, new.flops_per_token, "FLOPs"),
                _active(new)
                or _change(old.flops_per_token, new.flops_per_token)[3:]
                or "as before",
            ),
        ],
        "parts": _parts(old, new),
    }


def _tile(name: str, hint: str, before: str, after: str, detail: str) -> dict:
    return {
        "name": name,
        "hint": hint,
        "before": before,
        "after": after,
        "detail": detail,
        "changed": before != after,
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


def _active(preview: Preview) -> str:
    if preview.active_parameters == preview.parameters:
        return ""
    return f"{_short(preview.active_parameters)} parameters active"


def _change(old: float, new: float) -> str:
    return f" · {100 * (new - old) / old:+.1f} %".replace("-", "−") if old and old != new else ""


def _short(number: float) -> str:
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.{_digits(number / limit)}f} {unit}"
    return f"{number:,.0f}"


def _digits(value: float) -> int:
    """Decimals for four figures in all."""
    return 0 if value >= 1000 else 1 if value >= 100 else 2


def _size(size: float, unit: str = "B") -> str:
    return _sizes(size, size, unit)[1]


def _cache(old: int | None, new: int | None) -> tuple[str, str, str]:
    if old is None or new is None:
        return "unknown", "unknown", "this model's cache could not be looked into"
    return *_sizes(old, new), f"{_WINDOW:,} tokens: {_size(new * _WINDOW)}"


def _sizes(old: float, new: float, unit: str = "B") -> tuple[str, str]:
    """Both in the larger one's unit, which is written once."""
    scales = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
    factor, prefix = next((s for s in scales if max(old, new) >= s[0]), (1, ""))
    before, after = old / factor, new / factor
    return f"{before:.{_digits(before)}f}", f"{after:.{_digits(after)}f} {prefix}{unit}"
