"""Float32 copies of weights stored in half precision, kept for the passes that follow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from surgery.memory.devices import free_on

LINGER = 60.0  # seconds that copies are kept after the last pass that used them
_SHARE = 0.25  # of free memory for copies


class Copies:
    """Copies of frozen weights. Each is made when it is first asked for, and again if the weight
    has changed since. Models that share a weight, as a patient and its base do, share its copy.

    All are dropped once no pass has used any for a minute, or by `drop`.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple, _Copy] = {}
        self._lock = threading.Lock()
        self._users = 0
        self._timer: threading.Timer | None = None

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """The float32 copy of a weight."""
        key = _key(weight)
        kept = self._kept.get(key)
        # Tensors that were made in inference mode can't change outside of it and have no version.
        version = 0 if weight.is_inference() else weight._version
        if kept is None or kept.storage.expired() or kept.version != version:
            with torch.inference_mode(False), torch.no_grad():  # training may use them next
                values = weight.float()
            storage = StorageWeakRef(weight.untyped_storage())
            kept = self._kept[key] = _Copy(storage, version, values)
        return kept.values

    @contextmanager
    def used(self, model: nn.Module, fit: bool = False) -> Iterator[Copies | None]:
        """Yield the copies to use for passes of `model`, or None where they would take much of the
        free memory. They stay during the block. `fit` if the caller knows that they fit."""
        with self._lock:
            self._users += 1
            if self._timer:
                self._timer.cancel()
        try:
            self._forget_dead()
            yield self if fit or self.to_be_made(model) == self.missing(model) else None
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._kept:
                    self._timer = threading.Timer(LINGER, self.drop)
                    self._timer.daemon = True
                    self._timer.name = "float32 copies"
                    self._timer.start()

    @staticmethod
    def _free(model: nn.Module) -> int:
        """Free bytes where the copies will be: on the device with the least room."""
        return min(free_on(device) for device in {p.device for p in model.parameters()})

    def to_be_made(self, model: nn.Module) -> int:
        """Bytes of the copies that passes of a model will make: 0 where they would take much of the
        free memory, and each weight is converted again for every product instead."""
        missing = self.missing(model)
        return missing if missing and missing <= self._free(model) * _SHARE else 0

    def missing(self, model: nn.Module) -> int:
        """Bytes that the copies of a model's weights take, without those that are there."""
        return sum(4 * p.numel() for p in model.parameters() if _key(p) not in self._kept)

    def drop(self) -> None:
        """Drop all copies unless they are in use."""
        with self._lock:
            if not self._users:
                self._kept.clear()

    def _forget_dead(self) -> None:
        for key, kept in list(self._kept.items()):  # other threads add to them meanwhile
            if kept.storage.expired():
                self._kept.pop(key, None)


class _Copy(NamedTuple):
    storage: StorageWeakRef  # of the weight
    version: int  # of the weight when it was copied
    values: torch.Tensor


def _key(weight: torch.Tensor) -> tuple:
    """The same for tensors that are the same bytes in the same form."""
    where = weight.untyped_storage()._cdata, weight.storage_offset()
    return *where, weight.dtype, weight.shape, weight.stride()
