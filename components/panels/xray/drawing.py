"""What the figures of a scan have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from surgery.numbers import perplexity

if TYPE_CHECKING:
    from surgery.analysis import Variant

#: {score: the part of a layer that it is of}
HALVES = {"drop_attention": "attention", "drop_mlp": "MLP"}
_MOST_TICKS = 30


def interval(variant: Variant) -> str:
    """The 95 % interval of its perplexity."""
    return f"{perplexity(variant.low)} to {perplexity(variant.high)}"


def layer_axis(depth: int) -> dict:
    """The base's layers from left to right."""
    every = max(1, math.ceil(depth / _MOST_TICKS))
    at = list(range(0, depth, every))
    return {
        "title": {"text": "layer of the base"},
        "tickvals": at,
        "ticktext": [str(i) for i in at],
        "tickangle": 0,
        "range": [-0.5, depth - 0.5],
        "anchor": "y2",
        "showgrid": False,
        "zeroline": False,
    }
