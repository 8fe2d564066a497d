"""A plan: an ordered list of layers, each with its source layer in the base and its initialiser.

Pure data: it knows the base's depth and nothing else. Layers are numbered from 0 and ranges are
half-open, as in Python, mergekit and PEFT.

    0:24, 8:32                SOLAR's depth up-scaling of 32 layers
    0:8, 7@identity, 8:12     an extra copy of layer 7 that starts as the identity
    4:8*3                     layers 4 to 7, three times over
    5                         one layer, 5:6
    b/8:24                    layers of another base, named where the notation is given
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import index

from .errors import PlanError
from .initialisers import INITIALISERS, Block, Initialiser

MAX_LAYERS = 4096  # a typo such as 0:30*999999 must not eat the machine
_LONGEST_PIECE = 200  # characters between two commas
_ITEM = re.compile(
    r"(?:(?P<base>[A-Za-z_][\w.-]*)\s*/\s*)?"
    r"(?P<start>[0-9]+)\s*(?::\s*(?P<end>[0-9]+))?"
    r"(?:\s*\*\s*(?P<times>[0-9]+))?"
    r"(?:\s*@\s*(?P<init>[a-z]+(?:-[a-z]+)*)(?:\s*=\s*(?P<factor>[^\s@*]+))?)?"
)
_LATE_COUNT = re.compile(r"([^@*]{1,60})(@[^@*]{1,60})\*\s*([0-9]{1,9})")
_NEGATIVE = re.compile(r"(?:^|[:*])\s*-\s*[0-9]")
# What float() takes beyond this (1_0, digits of other scripts) is more likely a slip.
_FACTOR = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Init:
    """How a layer is initialised: the name of one of `INITIALISERS`, and its factor.

    `copy`: the weights of its source layer. `identity`: output projections zeroed, so that the
    layer adds nothing (LLaMA-Pro, arXiv 2401.02415). `no-attention`, `no-mlp`: those of one block
    zeroed. `scale`: output projections times `factor`.
    `random`: the model's own initialisation. `average`: mean with the next layer in the plan.
    `lstsq`, `refit`: output projections fitted to the base's hidden states by `surgery.repairing`.
    """

    kind: str = "copy"
    factor: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Init:
        """Read what stands after @ in a plan. Raises `PlanError`."""
        kind, equals, factor = text.partition("=")
        return _parse_init(kind, factor if equals else None, f"“@{_short(text)}”")

    def __str__(self) -> str:
        return f"{self.kind}={self.factor!r}" if self.initialiser.takes_factor else self.kind

    @property
    def initialiser(self) -> Initialiser:
        """Its entry in the registry."""
        return INITIALISERS[self.kind]

    @property
    def output_factor(self) -> float | None:
        """What it multiplies output projections by, if it changes nothing else; otherwise None."""
        factor = self.initialiser.output_factor
        return factor(self.factor) if factor else None

    def factor_of(self, output_of: Block | None) -> float | None:
        """What it multiplies a tensor by: the output projection of a block, or, for None, another
        tensor. None if it does anything else to a layer."""
        if block := self.initialiser.block:
            return 0.0 if output_of is block else 1.0
        return self.output_factor if output_of or self.output_factor is None else 1.0


COPY = Init()


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the patient: layer `source` of base `base` ("" is the base operated on)."""

    source: int
    init: Init = COPY
    base: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """An immutable, ordered list of layers. Every edit returns a new plan.

    `depth` is the number of layers of the base; `bases` gives the depth of every other base that
    the notation may name. Raises `PlanError` for anything that does not fit.
    """

    layers: tuple[Layer, ...]
    depth: int
    bases: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise PlanError("A model needs at least one layer: this plan would leave none.")
        if len(self.layers) > MAX_LAYERS:
            raise PlanError(
                f"This plan has {len(self.layers):,} layers; at most {MAX_LAYERS:,} are allowed."
            )
        for layer in self.layers:
            depth = self._depth_of(layer.base)
            if not 0 <= layer.source < depth:
                raise PlanError(
                    f"There is no layer {layer.source}: the base has layers 0 to {depth - 1}."
                )

    # ------------------------------------------------------------------ notation

    @classmethod
    def whole(cls, depth: int) -> Plan:
        """Return the plan that changes nothing."""
        return cls(tuple(Layer(i) for i in range(depth)), depth)

    @classmethod
    def of(cls, sources: Iterable[int], depth: int) -> Plan:
        """Return a plan of plain copies, from source indices."""
        return cls(tuple(Layer(index(i)) for i in sources), depth)

    @classmethod
    def parse(cls, text: str, depth: int, bases: Mapping[str, int] | None = None) -> Plan:
        """Read a plan in notation, such as “0:13, 17:30”, for a base of `depth` layers. Raises
        `PlanError` that names the piece of text and what is allowed there."""
        bases = dict(bases or {})
        if not text.strip():
            raise PlanError(f"The plan is empty. Write ranges such as 0:{depth}.")
        layers: list[Layer] = []
        for piece in text.split(","):
            layers += _parse_piece(piece.strip(), depth, bases)
            if len(layers) > MAX_LAYERS:
                raise PlanError(
                    f"“{_short(piece)}” makes the plan longer than {MAX_LAYERS:,} layers."
                )
        return cls(tuple(layers), depth, bases)

    def __str__(self) -> str:
        """The shortest notation that reads well; parsing it gives this plan again."""
        pieces, p, layers = [], 0, self.layers
        while p < len(layers):
            first = layers[p]
            times = 1
            while p + times < len(layers) and layers[p + times] == first:
                times += 1
            end = p + 1
            if times == 1:
                # A run goes on while layers follow one another, but stops before a layer that is
                # repeated on the spot: 0, 1, 1, 2 reads better as 0, 1*2, 2 than as 0:2, 1:3.
                while (
                    end < len(layers)
                    and layers[end] == replace(first, source=first.source + end - p)
                    and not (end + 1 < len(layers) and layers[end + 1] == layers[end])
                ):
                    end += 1
            pieces.append((first, end - p, times))
            p = end if times == 1 else p + times
        out = []
        for (first, length, times), same in groupby(pieces):
            times *= len(list(same))
            text = str(first.source) if length == 1 else f"{first.source}:{first.source + length}"
            if first.base:
                text = f"{first.base}/{text}"
            if times > 1:
                text += f"*{times}"
            out.append(text + (f"@{first.init}" if first.init != COPY else ""))
        return ", ".join(out)

    def __repr__(self) -> str:
        return f"Plan({str(self)!r}, depth={self.depth})"

    # ------------------------------------------------------------------ what it says

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def sources(self) -> tuple[int, ...]:
        """The source layer of every position."""
        return tuple(layer.source for layer in self.layers)

    @property
    def is_whole(self) -> bool:
        """Whether this plan leaves the base unchanged."""
        return self.layers == Plan.whole(self.depth).layers

    @property
    def dropped(self) -> tuple[int, ...]:
        """Layers of the base that the patient doesn't have."""
        kept = {layer.source for layer in self.layers if not layer.base}
        return tuple(i for i in range(self.depth) if i not in kept)

    @property
    def repeated(self) -> int:
        """The number of layers that are second or later copies of their source."""
        return len(self.layers) - len({(layer.base, layer.source) for layer in self.layers})

    @property
    def seams(self) -> tuple[int, ...]:
        """Positions whose layer doesn't follow its predecessor in the base; 0 if the first layer
        isn't the base's first, and the plan's length if its last isn't the base's last."""
        before, after = [-1, *self.sources], [*self.sources, self.depth]
        return tuple(p for p, (a, b) in enumerate(zip(before, after, strict=True)) if b != a + 1)

    @property
    def fitted(self) -> tuple[int, ...]:
        """Positions of layers whose weights a repair fits; the plan alone doesn't give them."""
        return tuple(p for p, layer in enumerate(self.layers) if layer.init.initialiser.fitted)

    @property
    def unfitted(self) -> Plan:
        """The plan before its repair: with plain copies in place of fitted layers."""
        fitted = set(self.fitted)
        return self._with(
            tuple(
                replace(layer, init=COPY) if p in fitted else layer
                for p, layer in enumerate(self.layers)
            )
        )

    def describe(self) -> str:
        """Summarise what the plan does to the base: “4 dropped, 3 repeated”."""
        first_seen = list(dict.fromkeys(i.source for i in self.layers if not i.base))
        foreign = sum(bool(layer.base) for layer in self.layers)
        fitted = len(self.fitted)
        changed = sum(layer.init != COPY for layer in self.layers) - fitted
        parts = [
            f"{len(self.dropped)} dropped" if self.dropped else "",
            f"{self.repeated} repeated" if self.repeated else "",
            "reordered" if first_seen != sorted(first_seen) else "",
            f"{foreign} from another base" if foreign else "",
            f"{changed} reinitialised" if changed else "",
            f"{fitted} fitted" if fitted else "",
        ]
        return ", ".join(filter(None, parts)) or "unchanged"

    # ------------------------------------------------------------------ edits
    # Ranges are positions in this plan, except in `restore` and `insert`, which speak of the base.

    def drop(self, start: int, end: int) -> Plan:
        """Return the plan without the layers at positions [start, end)."""
        self._check_range(start, end)
        return self._with(self.layers[:start] + self.layers[end:])

    def repeat(self, start: int, end: int, times: int = 1, init: Init = COPY) -> Plan:
        """Return the plan with `times` more copies of [start, end) right after it, initialised as
        `init`."""
        self._check_range(start, end)
        if times < 1:
            raise PlanError(f"A range can be repeated once or more, not {times} times.")
        if (end - start) * times > MAX_LAYERS:
            raise PlanError(f"Repeating {times} times makes more than {MAX_LAYERS:,} layers.")
        block = self.layers[start:end]
        if init != COPY:
            block = tuple(replace(layer, init=init) for layer in block)
        return self._with(self.layers[:end] + block * times + self.layers[end:])

    def move(self, start: int, end: int, to: int) -> Plan:
        """Return the plan with [start, end) moved before what is now at position `to` (0 to
        length)."""
        self._check_range(start, end)
        if not 0 <= to <= len(self.layers):
            raise PlanError(f"Layers can be moved to positions 0 to {len(self)}, not {to}.")
        if start <= to <= end:
            return self
        block = self.layers[start:end]
        before, after = self.layers[:to], self.layers[to:]
        if to < start:
            after = self.layers[to:start] + self.layers[end:]
        else:
            before = self.layers[:start] + self.layers[end:to]
        return self._with(before + block + after)

    def reverse(self, start: int, end: int) -> Plan:
        """Return the plan with [start, end) in reverse order."""
        self._check_range(start, end)
        return self._with(self.layers[:start] + self.layers[start:end][::-1] + self.layers[end:])

    def insert(self, at: int, start: int, end: int, init: Init = COPY, base: str = "") -> Plan:
        """Return the plan with the base's layers [start, end) inserted before position `at` (0 to
        length)."""
        if not 0 <= at <= len(self.layers):
            raise PlanError(f"Layers can be inserted at positions 0 to {len(self)}, not {at}.")
        _check_source(start, end, self._depth_of(base))
        block = tuple(Layer(i, init, base) for i in range(start, end))
        return self._with(self.layers[:at] + block + self.layers[at:])

    def restore(self, start: int, end: int) -> Plan:
        """Return the plan with the base's layers [start, end) as the base has them: each once, in
        order.

        They go after the last appearance of the nearest lower layer that the plan still has, or to
        the front if there is none. The rest of the plan stays as it is.
        """
        _check_source(start, end, self.depth)
        rest = [x for x in self.layers if x.base or not start <= x.source < end]
        lower = [(x.source, p) for p, x in enumerate(rest) if not x.base and x.source < start]
        at = max(lower)[1] + 1 if lower else 0
        block = [Layer(i) for i in range(start, end)]
        return self._with((*rest[:at], *block, *rest[at:]))

    def initialise(self, start: int, end: int, init: Init) -> Plan:
        """Return the plan with the layers at [start, end) initialised as `init`."""
        self._check_range(start, end)
        block = tuple(replace(layer, init=init) for layer in self.layers[start:end])
        return self._with(self.layers[:start] + block + self.layers[end:])

    # ------------------------------------------------------------------ helpers

    def _with(self, layers: tuple[Layer, ...]) -> Plan:
        return replace(self, layers=tuple(layers))

    def _depth_of(self, base: str) -> int:
        if not base:
            return self.depth
        if base not in self.bases:
            raise PlanError(f"No base is called “{_short(base)}” here.")
        return self.bases[base]

    def _check_range(self, start: int, end: int) -> None:
        if not 0 <= start < end <= len(self.layers):
            raise PlanError(
                f"{start}:{end} is not a range of this plan: it has positions 0 to "
                f"{len(self) - 1}, so a range lies within 0:{len(self)} and is not empty."
            )


def _short(text: str) -> str:
    """Untrusted text for a message: one line, of bounded length."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:41])
    return text if len(text) <= 40 else text[:37] + "…"


def _check_source(start: int, end: int, depth: int) -> None:
    if not 0 <= start < end <= depth:
        raise PlanError(
            f"{start}:{end} is not a range of the base: it has layers 0 to {depth - 1}, "
            f"so a range lies within 0:{depth} and is not empty."
        )


def _parse_piece(piece: str, depth: int, bases: Mapping[str, int]) -> list[Layer]:
    shown = f"“{_short(piece)}”"
    if not piece:
        raise PlanError("There is an empty entry between two commas or at an end: remove it.")
    # Not tried on a long piece: that may take time that grows with the square of its length.
    m = _ITEM.fullmatch(piece) if len(piece) <= _LONGEST_PIECE else None
    if not m and (late := _LATE_COUNT.fullmatch(piece)):
        layers, init, times = (part.strip() for part in late.groups())
        raise PlanError(
            f"{shown} has its count after the @: write {_short(f'{layers}*{times}{init}')}."
        )
    if not m and _NEGATIVE.search(piece):
        raise PlanError(f"{shown} has a negative number: layers are numbered 0 to {depth - 1}.")
    if not m:
        raise PlanError(
            f"{shown} is not a range. Write 5, 4:8, 4:8*3 or 7@identity, with commas between."
        )
    base = m["base"] or ""
    if base and base not in bases:
        known = ", ".join(sorted(bases)) or "none is named here"
        raise PlanError(f"{shown} names a base that is not known ({known}).")
    depth = bases[base] if base else depth
    start = int(m["start"])
    end = int(m["end"]) if m["end"] else start + 1
    if start >= end:
        raise PlanError(
            f"{shown} is empty or runs backwards: a range is start:end with start below end."
        )
    if end > depth:
        raise PlanError(
            f"{shown} reaches past the last layer: the base has layers 0 to {depth - 1}, "
            f"so a range ends at {depth} at most."
        )
    times = int(m["times"] or 1)
    if times < 1:
        raise PlanError(f"{shown} is repeated zero times: leave it out instead.")
    if (end - start) * times > MAX_LAYERS:
        raise PlanError(f"{shown} makes more than {MAX_LAYERS:,} layers.")
    init = _parse_init(m["init"], m["factor"], shown)
    return [Layer(i, init, base) for i in range(start, end)] * times


def _parse_init(kind: str | None, factor: str | None, shown: str) -> Init:
    if kind is None:
        return COPY
    if kind not in INITIALISERS:
        *first, last = (initialiser.notation for initialiser in INITIALISERS.values())
        raise PlanError(f"{shown}: after @ comes {', '.join(first)} or {last}.")
    takes_factor = INITIALISERS[kind].takes_factor
    if takes_factor and factor is None:
        raise PlanError(f"{shown}: {kind} takes a number, as in @{INITIALISERS[kind].notation}.")
    if factor is not None and not takes_factor:
        raise PlanError(f"{shown}: {kind} takes no number.")
    if factor is None:
        return Init(kind)
    value = float(factor) if _FACTOR.fullmatch(factor) else math.nan
    if not math.isfinite(value):
        raise PlanError(f"{shown}: “{_short(factor)}” is not a number.")
    return Init(kind, value)
