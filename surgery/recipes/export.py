"""Write plans as files: mergekit's passthrough YAML, PEFT's layer_replication, Python."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING

import yaml

from surgery.errors import Refused
from surgery.initialisers import Block
from surgery.plan import COPY, Layer, Plan

from .recipe import layer_tensors

if TYPE_CHECKING:
    from surgery.model import Model


def to_yaml(
    model: str,
    plan: Plan,
    dtype: str | None,
    outputs: Mapping[Block, Sequence[str]],
    parts: Sequence[tuple[str, int]] = (),
) -> str:
    """Write the plan as mergekit's passthrough recipe for `model` (a Hub id or a folder).

    `outputs` are the names of a layer's output projections by the block that they end. Without a
    `dtype` (float32, float16 or bfloat16) every tensor keeps its own. For a stack of several models
    `parts` has each one's name and its first layer in the stack. Raises `Refused` for layers that
    mergekit can't express, such as `@random` or `@average`.
    """
    slices = []
    parts = parts or [(model, 0)]
    starts = [start for _, start in parts]
    for first, length in _runs(plan, starts):
        block = first.init.initialiser.block
        factor = 0.0 if block else first.init.output_factor
        every = chain.from_iterable(outputs.values())
        changed = list(outputs.get(block, ()) if block else every)
        if first.base or factor is None or (block and not changed):
            raise Refused(f"mergekit's recipes can't express {first.base or first.init}.")
        name, offset = parts[bisect_right(starts, first.source) - 1]
        start = first.source - offset
        source: dict = {"model": name, "layer_range": [start, start + length]}
        if first.init != COPY:
            source["parameters"] = {
                "scale": [
                    *({"filter": name, "value": factor} for name in changed),
                    {"value": 1.0},
                ]
            }
        slices.append({"sources": [source]})
    recipe = {"slices": slices, "merge_method": "passthrough"}
    if dtype:
        recipe["dtype"] = dtype
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def to_peft(plan: Plan) -> str:
    """Write the plan as PEFT's `layer_replication`, for `LoraConfig`: repeated layers share the
    base's weights and differ by their LoRA alone. Raises `Refused` for layers that are no copies.
    """
    ranges = []
    for first, length in _runs(plan):
        if first.base or first.init != COPY:
            which = f"{first.base}/{first.source}" if first.base else first.source
            raise Refused(
                f"PEFT's layer_replication can only repeat one base's layers as they are, not "
                f"{which}@{first.init}."
            )
        ranges.append([first.source, first.source + length])
    return json.dumps({"layer_replication": ranges}) + "\n"


def to_python(
    spec: str,
    plan: Plan,
    others: Mapping[str, str] | None = None,
    union: bool = False,
    dtype: str | None = None,
) -> str:
    """Write a program that makes the same checkpoint with this library. `others` are other bases by
    their names in the plan; with `union`, the tokens that they have added are appended."""
    used = dict.fromkeys(layer.base for layer in plan.layers if layer.base)
    named = {name: (others or {})[name] for name in used}
    join = "stack_united" if union else "stack"
    options = f", dtype={dtype!r}" if dtype else ""
    lines = [
        f"from surgery import Base, Plan{f', {join}' if named else ''}",
        "",
        f"base = Base.open({spec!r})",
    ]
    depths = ""
    if named:
        opened = ", ".join(f"{name!r}: Base.open({one!r})" for name, one in named.items())
        lines.append(f"others = {{{opened}}}")
        depths = ", {name: other.depth for name, other in others.items()}"
    lines.append(f"plan = Plan.parse({str(plan)!r}, base.depth{depths})")
    if named:
        lines.append(f"base, plan = {join}(base, others, plan)")
    lines.append(f'base.save(plan, "out/"{options})')
    return "\n".join(lines) + "\n"


def output_filters(
    tensors: Sequence[tuple[str, Block | None]], known: Iterable[str]
) -> dict[Block, list[str]]:
    """The `known` names of output projections that the base has, by block. Where two blocks use one
    name, or it occurs in that of another tensor, the tensors' own names."""
    filters: dict[Block, list[str]] = {}
    for name in known:
        having = [(tensor, block) for tensor, block in tensors if name in tensor]
        unique = len({block for _, block in having}) == 1
        for tensor, block in having:
            if block is not None:
                word = name if unique else re.sub(r"\.(weight|bias)$", "", tensor)
                if word not in filters.setdefault(block, []):
                    filters[block].append(word)
    return filters


def of_base(
    base: Model,
    plan: Plan,
    model: str,
    dtype: str | None,
    parts: Sequence[tuple[str, int]] = (),
) -> str:
    """Write the plan for this base as mergekit's YAML. `parts` has (name, first layer) of each base
    of a stack, by default with the bases' own names."""
    from surgery.architecture.apply.initialise import check_supported
    from surgery.architecture.inspect.identity_proof import OUTPUT_PROJECTIONS

    if any(layer.init.initialiser.block for layer in plan.layers):
        check_supported(base.anatomy, plan)  # whose layers may differ in what they are made of
    outputs = output_filters(layer_tensors(base), OUTPUT_PROJECTIONS)
    return to_yaml(model, plan, dtype, outputs, parts or base.parts)


def _runs(plan: Plan, starts: Sequence[int] = (0,)) -> list[tuple[Layer, int]]:
    """(first layer, length) of every run of layers that follow one another alike, within what
    begins at one of `starts`."""
    keyed = enumerate(plan.layers)

    def key(item: tuple[int, Layer]) -> tuple:
        position, layer = item
        part = bisect_right(starts, layer.source)
        return layer.source - position, layer.init, layer.base, part

    runs = []
    for _, group in groupby(keyed, key):
        layers = [layer for _, layer in group]
        runs.append((layers[0], len(layers)))
    return runs
