"""What was measured before, by base, sample and plan: stopping loses nothing.

Each measurement is a small array in a file of its own, written whole or not at all, so that any
number of processes can add to them. A file that can't be read, written or trusted is as good as
none: it is measured anew. Knows arrays and names; what they mean is for others.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from surgery.io.cache_file import whole_file
from surgery.plan import Plan
from surgery.sources.cache import cache_folder

from .sample import Sample

if TYPE_CHECKING:
    from surgery.base import Base

_IN_MEMORY, _ON_DISK = 8, 64  # samples: of each base, and of all
_FORMAT = 1  # another one makes older files be measured anew
_ON_DISK_KINDS = ("bundled", "hub", "folder", "gguf")  # the others' weights have no lasting name
_lock = threading.Lock()
_memory: WeakKeyDictionary[Base, OrderedDict[str, dict[str, np.ndarray]]] = WeakKeyDictionary()


class Measured:
    """The measurements of one base on one sample. They are shared by everyone in the process."""

    def __init__(self, base: Base, sample: Sample) -> None:
        with _lock:
            samples = _memory.setdefault(base, OrderedDict())
            self._arrays = samples.setdefault(sample.key, {})
            samples.move_to_end(sample.key)
            while len(samples) > _IN_MEMORY:
                samples.popitem(last=False)
        self._folder = None
        if base.kind in _ON_DISK_KINDS:
            name = f"{_FORMAT}:{base.source.identity}:{sample.key}"
            self._folder = _home() / hashlib.sha256(name.encode()).hexdigest()[:32]

    def get(self, what: str | Plan, shape: tuple[int, ...]) -> np.ndarray | None:
        """What was measured under a name or of a plan; None if it wasn't, or not in this shape."""
        name = _name(what)
        found = self._arrays.get(name)
        if found is None and self._folder is not None:
            found = _read(self._folder / f"{name}.npy")
            if found is not None:
                self._arrays[name] = found
        return found if found is not None and found.shape == shape else None

    def put(self, what: str | Plan, values: np.ndarray) -> None:
        """Keep a measurement."""
        name = _name(what)
        self._arrays[name] = values
        if self._folder is None:
            return
        try:
            new = not self._folder.is_dir()
            with whole_file(self._folder / f"{name}.npy") as file:
                np.save(file, values, allow_pickle=False)
            if new:
                _clear_old()
        except OSError:  # no room, no permission: the next process measures again
            return

    def forget(self) -> None:
        """Measure anew when next asked, in memory and on disk."""
        self._arrays.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _home() -> Path:
    return cache_folder() / "xray"


def _name(what: str | Plan) -> str:
    if isinstance(what, str):
        return what
    return "plan-" + hashlib.sha256(str(what).encode()).hexdigest()[:32]


def _read(path: Path) -> np.ndarray | None:
    try:
        return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except Exception:  # absent, cut off, no array: many errors, one meaning
        return None


def _clear_old() -> None:
    folders = sorted(_home().iterdir(), key=lambda path: -path.stat().st_mtime)
    for folder in folders[_ON_DISK:]:
        shutil.rmtree(folder, ignore_errors=True)
