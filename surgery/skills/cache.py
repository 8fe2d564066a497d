"""Margins that were measured before, in memory and on disk, so that no item is graded twice.

The items of a skill are drawn one after another: those of a small number are the first of a larger
one. So margins of more items are added to the ones that are there.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from surgery.analysis.cache import lasting_name
from surgery.io.array_cache import ArrayCache
from surgery.io.cache_folder import cache_folder
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .registry import ITEMS, items_of

if TYPE_CHECKING:
    from surgery.base import Base

_IN_MEMORY, _ON_DISK = 2000, 64  # entries of each base, and bases
_VERSION = 1  # of grading; files of another one are ignored
_memory: WeakKeyDictionary[Base, OrderedDict[str, tuple[float, ...]]] = WeakKeyDictionary()


class MarginCache:
    """Numbers of one patient by name: in memory until it is one `of` a plan, which others share."""

    def __init__(self) -> None:
        self._prefix = ""
        self._disk: ArrayCache | None = None
        self._group = ""
        self._values: OrderedDict[str, tuple[float, ...]] = OrderedDict()

    @classmethod
    def of(cls, base: Base, plan: Plan, progress: Progress | None = silent) -> MarginCache:
        """The one of a plan's patient, which everything in the process shares and, where the
        weights have a lasting name, other processes. `progress` counts the bytes that are read to
        identify them. Raises `BaseError` if they can't be read."""
        cache = cls()
        cache._values = _memory.setdefault(base, OrderedDict())
        dtype = str(base.compute_dtype)
        cache._prefix = f"{hashlib.sha256(str(plan).encode()).hexdigest()[:32]}-{dtype}-"
        if name := lasting_name(base, progress):
            cache._disk = ArrayCache(cache_folder() / "skills", _ON_DISK, _VERSION)
            cache._group = name
        return cache

    def get(self, name: str) -> tuple[float, ...]:
        """The numbers that are known, in order; none if nothing is."""
        name = self._prefix + name
        if name not in self._values and self._disk is not None:
            entry = self._disk.get(self._group, name)
            if entry is not None and "values" in entry:
                self._keep(name, entry["values"].tolist())
        return self._values.get(name, ())

    def put(self, name: str, values: Sequence[float]) -> None:
        """Keep numbers in place of those that were known."""
        name = self._prefix + name
        self._keep(name, values)
        if self._disk is not None:
            self._disk.put(self._group, name, {"values": np.array(values, np.float64)})

    def _keep(self, name: str, values: Sequence[float]) -> None:
        self._values[name] = tuple(values)
        while len(self._values) > _IN_MEMORY:
            self._values.popitem(last=False)


@lru_cache(maxsize=256)
def name_of(key: str, seed: int) -> str:
    """The name of a skill's margins. It follows from the items, so that margins of other items are
    never taken for them."""
    items = repr(items_of(key, ITEMS, seed)).encode()
    return f"{key}-{hashlib.sha256(f'{seed}:'.encode() + items).hexdigest()[:24]}"
