"""What a model consists of, in numbers: plain data that needs no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

COMPONENTS = ("embedding", "attention", "mlp", "experts", "norms", "head", "towers", "other")


@dataclass(frozen=True)
class Count:
    """The size of one layer, or of everything outside the layers.

    `parameters` by component; `active` parameters are those used for one text token; `flops` are
    forward FLOPs per token of the matrix products, two per weight (Kaplan et al. 2020, arXiv
    2001.08361, table 1, without the term that grows with the context); `cache` is the number of
    values that the KV cache keeps per token.
    """

    parameters: Counter
    active: int = 0
    flops: int = 0
    cache: int = 0


@dataclass(frozen=True)
class Shared:
    """A parameter that `layers` share (Zamba's one attention block in many places)."""

    size: int
    component: str
    layers: frozenset[int]


@dataclass(frozen=True)
class Counts:
    """The counts of a base. Tied weights are counted once, where they are used first."""

    outside: Count
    layers: tuple[Count, ...]
    # Parameters of packed per-layer tables: one entry per layer of the plan.
    per_layer_tables: int
    # Parameters that several layers share, there once if a plan has any of them.
    shared: tuple[Shared, ...] = ()
    # False if what the cache keeps could not be found out; `cache` is 0 then.
    cache_known: bool = True

    @property
    def total(self) -> int:
        """Parameters of the base."""
        own = (self.outside, *self.layers)
        shared = sum(s.size for s in self.shared)
        tables = self.per_layer_tables * len(self.layers)
        return sum(c.parameters.total() for c in own) + shared + tables


@dataclass(frozen=True)
class LayerPart:
    """Parameters of one layer that differ in nothing but a number in their name, such as those of
    its experts: `times` of one `shape`, of a component in `COMPONENTS`. The name has `*` for that
    number."""

    name: str
    component: str
    shape: tuple[int, ...]
    times: int = 1


@dataclass(frozen=True)
class Layouts:
    """What each layer consists of, in the model's order: layer i of `distinct[of[i]]`."""

    distinct: tuple[tuple[LayerPart, ...], ...]
    of: tuple[int, ...]


@dataclass(frozen=True)
class StoredBytes:
    """Bytes of a model's stored tensors: outside the layers, and of each layer with its part of
    packed per-layer tables.

    `passed_on` are those of tensors that are stored in one layer and shared by others, which store
    them where that one is left out: (bytes, layer, the others).
    """

    outside: int
    layers: tuple[int, ...]
    passed_on: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
