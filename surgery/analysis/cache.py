"""Measurements of a base on a sample, kept in memory and on disk so that none is repeated.

Each is written as soon as it is made, to a file of its own: a measurement that is stopped resumes
where it was, and any number of processes can add to the same base and sample. Where a base lies
doesn't matter, so files that another machine measured can be copied into the folder.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from surgery.errors import BaseError
from surgery.io.array_cache import ArrayCache
from surgery.io.cache_folder import cache_folder
from surgery.plan import Plan
from surgery.progress import Progress, silent
from surgery.sources.fingerprint import fingerprint

from .sample import Sample

if TYPE_CHECKING:
    from surgery.base import Base

_IN_MEMORY, _ON_DISK = 8, 64  # samples: of each base, and of all
_VERSION = 3  # of the measurements; files of another one are ignored
# The weights of others have no lasting name.
_LASTING_KINDS = ("bundled", "hub", "folder", "gguf", "adapter")
_lock = threading.Lock()
_memory: WeakKeyDictionary[Base, OrderedDict[str, dict[str, np.ndarray]]] = WeakKeyDictionary()
_fingerprints: WeakKeyDictionary[Base, str] = WeakKeyDictionary()


class MeasurementCache:
    """The measurements of one base on one sample in one dtype, shared by everything in the process.

    A key is a name, or a plan, whose entry is its losses.
    """

    def __init__(self, base: Base, sample: Sample, progress: Progress | None = silent) -> None:
        """`progress` counts the bytes of weights that are read to identify a base, once. If it is
        None, none are read: a base that was never measured on this machine has nothing on disk
        then. Raises `BaseError` if its files can't be read."""
        settings = f"{sample.key}:{base.compute_dtype}"
        with _lock:
            samples = _memory.setdefault(base, OrderedDict())
            self._arrays = samples.setdefault(settings, {})
            samples.move_to_end(settings)
            while len(samples) > _IN_MEMORY:
                samples.popitem(last=False)
        self._disk = None
        if name := lasting_name(base, progress):
            self._group = f"{name}:{settings}"
            self._disk = ArrayCache(cache_folder() / "analysis", _ON_DISK, _VERSION)

    def get(self, key: str | Plan, shape: tuple[int, ...]) -> np.ndarray | None:
        """The measurement of a key; None if there is none of this shape."""
        name = _name(key)
        if name not in self._arrays and self._disk is not None:
            entry = self._disk.get(self._group, name)
            if entry is not None and "values" in entry:
                self._arrays[name] = entry["values"]
        values = self._arrays.get(name)
        return values if values is not None and values.shape == shape else None

    def put(self, key: str | Plan, values: np.ndarray) -> None:
        """Keep a measurement."""
        self._arrays[_name(key)] = values
        if self._disk is not None:
            self._disk.put(self._group, _name(key), {"values": values})

    @property
    def is_lasting(self) -> bool:
        """Whether other processes share it: not where weights exist in memory only."""
        return self._disk is not None

    def is_stored(self, key: str | Plan) -> bool:
        """Whether other processes find a measurement."""
        return self._disk is not None and self._disk.get(self._group, _name(key)) is not None

    def forget(self) -> None:
        """Remove all of them from memory and disk."""
        self._arrays.clear()
        if self._disk is not None:
            self._disk.delete(self._group)


def lasting_name(base: Base, progress: Progress | None = silent) -> str | None:
    """A name that follows from a base's weights, for results kept on disk. None if its weights have
    no lasting name, or if it isn't known yet and `progress` is None. Raises `BaseError`, also if
    the files have changed since: the weights in memory would get the name of those on disk."""
    if base.kind not in _LASTING_KINDS:
        return None
    if base not in _fingerprints:
        try:
            name = fingerprint(base.source, progress)
        except OSError as error:
            reason = error.strerror or error
            raise BaseError(f"{error.filename} can't be read: {reason}.") from error
        if name is None or (progress is None and base.source.has_changed):
            return None
        base.source.check()
        _fingerprints[base] = name
    return _fingerprints[base]


def _name(key: str | Plan) -> str:
    if isinstance(key, str):
        return key
    return "plan-" + hashlib.sha256(str(key).encode()).hexdigest()[:32]
