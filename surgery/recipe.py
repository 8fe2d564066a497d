"""A base and a plan as a file: mergekit's passthrough YAML.

Knows the format; reads and writes no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import yaml

from .plan import Init, Layer, Plan


def to_yaml(model: str, plan: Plan, dtype: str, outputs: Sequence[str]) -> str:
    """The plan as mergekit's passthrough recipe for `model` (a Hub id or a folder).

    `outputs` are the names of a layer's output projections, which identity and scale act on.
    """
    slices = []
    for first, length in _runs(plan):
        source: dict = {
            "model": model,
            "layer_range": [first.source, first.source + length],
        }
        if first.init.kind in ("identity", "scale"):
            factor = 0.0 if first.init.kind == "identity" else first.init.factor
            source["parameters"] = {
                "scale": [
                    *({"filter": name, "value": factor} for name in outputs),
                    {"value": 1.0},
                ]
            }
        slices.append({"sources": [source]})
    recipe = {"slices": slices, "merge_method": "passthrough", "dtype": dtype}
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def _runs(plan: Plan) -> list[tuple[Layer, int]]:
    """(first layer, length) of every run of layers that follow one another alike."""
    keyed = enumerate(plan.layers)

    def key(item: tuple[int, Layer]) -> tuple[int, Init, str]:
        position, layer = item
        return layer.source - position, layer.init, layer.base

    runs = []
    for _, group in groupby(keyed, key):
        layers = [layer for _, layer in group]
        runs.append((layers[0], len(layers)))
    return runs
