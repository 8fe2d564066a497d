"""Tables of `inspect` and `preview`: sizes, and how a plan changes them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from surgery import facts, numbers
from surgery.plan import Plan

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.known_base import KnownBase
    from surgery.preview import Preview

_KEYS = (
    "layers",
    "parameters",
    "active_parameters",
    "bytes",
    "kv_bytes_per_token",
    "flops_per_token",
)


def base_table(base: Base | KnownBase) -> Table:
    """What a base is, from its config and headers."""
    whole = asdict(base.preview(Plan.whole(base.depth)))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for label, value in (
        ("name", base.name),
        ("source", base.kind + (f", {base.note}" if base.note else "")),
        ("architecture", base.architecture),
        ("dtype", facts.dtypes(base)),
        ("licence", base.licence or "not stated"),
        ("tokenizer", _tokenizer(base)),
    ):
        table.add_row(label, escape(str(value)))
    for label, value in _sizes(whole):
        table.add_row(label, value)
    table.add_row("parameters by component")
    for name, value in whole["by_component"].items():
        table.add_row(f"  {name}", f"{value:,}")
    if any(base.kinds):
        for i, kind in enumerate(base.kinds):
            table.add_row(f"  layer {i}", escape(kind))
    return table


def change_table(name: str, before: Preview, after: Preview) -> Table:
    """A base called `name` and its patient side by side, with the change in percent."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", name, "patient", ""):
        table.add_column(escape(heading), justify="left" if not heading else "right")
    old, new = asdict(before), asdict(after)
    changes = [numbers.change(old[key], new[key]) for key in _KEYS]
    for (label, a), (_, b), change in zip(_sizes(old), _sizes(new), changes, strict=True):
        table.add_row(label, a, b, change)
    table.add_row("parameters by component")
    for name, value in old["by_component"].items():
        now = new["by_component"].get(name, 0)
        table.add_row(f"  {name}", f"{value:,}", f"{now:,}", numbers.change(value, now))
    return table


def _sizes(values: dict) -> list[tuple[str, str]]:
    """(label, number) for each of `_KEYS`."""
    cache = values["kv_bytes_per_token"]
    return [
        ("layers", f"{values['layers']:,}"),
        ("parameters", f"{values['parameters']:,}"),
        ("  active per token", f"{values['active_parameters']:,}"),
        ("weights, MB", f"{values['bytes'] / 1e6:,.1f}"),
        ("KV cache, kB per token", "unknown" if cache is None else f"{cache / 1e3:,.2f}"),
        ("compute, GFLOPs per token", f"{values['flops_per_token'] / 1e9:,.3f}"),
    ]


def _tokenizer(base: Base | KnownBase) -> str:
    if not base.has_tokenizer:
        return "none: text generation unavailable; operating and saving work"
    return "with a chat template" if base.has_chat_template else "without a chat template"
