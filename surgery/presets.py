"""Published recipes as functions from a base's depth to a plan, with a table for menus and help."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .errors import PlanError
from .plan import Init, Layer, Plan

_MOST_WORDS = 9  # more than any preset takes


def drop_middle(depth: int, n: int) -> Plan:
    """Depth down-scaling: drop `n` layers in the middle. 12 layers, n=2: `0:5, 7:12`."""
    _check("n", n, 1, depth - 1)
    start = (depth - n) // 2
    return Plan.whole(depth).drop(start, start + n)


def solar(depth: int, m: int) -> Plan:
    """SOLAR's depth up-scaling (arXiv 2312.15166): the bottom depth−m layers, then the top depth−m.

    32 layers, m=8: `0:24, 8:32`.
    """
    _check("m", m, 1, depth - 1)
    return Plan.of([*range(depth - m), *range(m, depth)], depth)


def llama_pro(depth: int, every: int) -> Plan:
    """LLaMA-Pro's block expansion (arXiv 2401.02415): after every `every` layers, one copy of the
    last that starts as the identity. 32 layers, every=4: 40 layers with the same logits."""
    _check("every", every, 1, depth)
    layers: list[Layer] = []
    for i in range(depth):
        layers.append(Layer(i))
        if (i + 1) % every == 0:
            layers.append(Layer(i, Init("identity")))
    return Plan(tuple(layers), depth)


def repeat(depth: int, start: int, end: int, times: int = 2) -> Plan:
    """The layers [start, end) run `times` times in a row. RYS runs 45:52 of Qwen2-72B twice."""
    _check("end", end, 1, depth)
    _check("start", start, 0, end - 1)
    _check("times", times, 2, 64)
    return Plan.whole(depth).repeat(start, end, times - 1)


def interleave(depth: int, block: int, overlap: int) -> Plan:
    """Overlapping blocks, as Goliath-120B stacks them: each block starts `overlap` layers before
    the last one ended. 32 layers, block=16, overlap=8: `0:16, 8:24, 16:32`."""
    _check("block", block, 2, depth)
    _check("overlap", overlap, 1, block - 1)
    sources: list[int] = []
    start = 0
    while True:
        end = min(start + block, depth)
        sources += range(start, end)
        if end == depth:
            return Plan.of(sources, depth)
        start = end - overlap


def _check(name: str, value: int, low: int, high: int) -> None:
    if high < low:
        raise PlanError("This base has a single layer, but the preset needs at least two.")
    if not low <= value <= high:
        allowed = f"{low} to {high}" if high > low else f"{low} only"
        raise PlanError(f"{name}={value} does not fit: {name} can be {allowed} here.")


@dataclass(frozen=True)
class Parameter:
    """A whole number that a preset takes; `default` follows from the depth."""

    name: str
    default: Callable[[int], int]
    hint: str


@dataclass(frozen=True)
class Preset:
    """A preset as menus and help texts show it."""

    name: str
    make: Callable[..., Plan]
    parameters: tuple[Parameter, ...]
    hint: str

    def __call__(self, depth: int, **values: int) -> Plan:
        """The plan for a base of `depth` layers; what is not given takes its default."""
        names = [p.name for p in self.parameters]
        for name in values:
            if name not in names:
                raise PlanError(f"{self.name} takes {', '.join(names)}; not “{name[:40]}”.")
        return self.make(depth, **{p.name: p.default(depth) for p in self.parameters} | values)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "drop-middle",
            drop_middle,
            (Parameter("n", lambda d: max(1, d // 6), "layers to drop"),),
            "Drop a block from the middle",
        ),
        Preset(
            "solar",
            solar,
            (Parameter("m", lambda d: max(1, d // 4), "layers cut from each copy"),),
            "Stack two overlapping copies (SOLAR)",
        ),
        Preset(
            "llama-pro",
            llama_pro,
            (Parameter("every", lambda d: min(4, d), "layers between new ones"),),
            "Insert new layers as the identity (LLaMA-Pro)",
        ),
        Preset(
            "repeat",
            repeat,
            (
                Parameter("start", lambda d: d // 3, "first layer of the range"),
                Parameter("end", lambda d: max(d // 3 + 1, d // 2), "end of the range, excluded"),
                Parameter("times", lambda d: 2, "runs of the range"),
            ),
            "Run a range several times (RYS)",
        ),
        Preset(
            "interleave",
            interleave,
            (
                Parameter("block", lambda d: max(2, d // 2), "layers per block"),
                Parameter("overlap", lambda d: max(1, d // 4), "layers shared by neighbours"),
            ),
            "Stack overlapping blocks (Goliath)",
        ),
    )
}


def parse(text: str, depth: int) -> Plan | None:
    """Parse a preset's name with its values, such as `solar` or `drop-middle n=4`. None if the text
    doesn't start with a word, which every preset does and no range does."""
    name, *rest = text.split(maxsplit=_MOST_WORDS) or [""]
    if not re.fullmatch(r"[A-Za-z][A-Za-z-]*", name):
        return None
    name = name.lower()
    if name not in PRESETS:
        raise PlanError(
            f"There is no preset “{name[:40]}”: write ranges such as 0:{depth}, or one of "
            f"{', '.join(PRESETS)}."
        )
    values: dict[str, int] = {}
    for word in rest:
        key, _, value = word.partition("=")
        if not re.fullmatch(r"-?[0-9]{1,9}", value):
            raise PlanError(
                f"“{word[:40]}” should be name=number, as in {name} "
                f"{PRESETS[name].parameters[0].name}=2."
            )
        if key in values:
            raise PlanError(f"{key[:40]} is given twice: leave one out.")
        values[key] = int(value)
    return PRESETS[name](depth, **values)
