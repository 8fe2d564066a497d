"""What a base is made of, as plain values for the layer strip."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgery import Base
    from surgery.known_base import KnownBase


def contents(base: Base | KnownBase) -> dict:
    """The distinct `layouts` of layers, which of them each layer has (`of`), and the parameters
    `outside` the layers by component. Those of `per_layer_tables` come for every layer of a plan.
    """
    return {
        "layouts": [[asdict(part) for part in layout] for layout in base.layouts.distinct],
        "of": list(base.layouts.of),
        "outside": dict(base.counts.outside.parameters),
        "per_layer_tables": base.counts.per_layer_tables,
    }
