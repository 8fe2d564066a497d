"""Read the next layer's weights from disk while this one runs.

Weights that lie in a memory-mapped file come page by page, in the order in which a matrix product
touches them, at a fraction of the disk's speed. Read in order beforehand, they come at its full
speed, and the product finds them in the system's page cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from surgery.architecture import Anatomy
from surgery.architecture.inspect.hooks import layers_of
from surgery.errors import BaseError

from . import Tensor

HEAD = -1  # stands for the model's head among the numbers of layers
_CHUNK = 8 << 20  # bytes


class ReadAhead:
    """Reads the stored tensors of a layer, `tensors[layer]`, from the files in `folder`. `check`
    raises `BaseError` if these have changed."""

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[int, Iterable[Tensor]],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder, self._tensors, self._check = folder, tensors, check
        self._lock = threading.Lock()
        self._reading: dict[int, _Reading] = {}  # the layer that runs, and the next one

    def attach(self, base: Anatomy, model: PreTrainedModel, sources: Sequence[int]) -> None:
        """Read ahead whenever `model` runs, whose layers have the weights of the base's layers
        `sources`."""
        modules = list(layers_of(base, model) or ())
        order = list(sources)
        if head := model.get_output_embeddings():
            modules.append(head)
            order.append(HEAD)
        for place, module in enumerate(modules):
            following = order[(place + 1) % len(order)]
            module.register_forward_pre_hook(_Hook(self, order[place], following))

    def need(self, layer: int, following: int) -> None:
        """Return once a layer has been read, and begin to read the one that follows. Raises
        `BaseError` if the files can't be read, or have changed."""
        self._check()
        with self._lock:
            reading = self._begin(layer)
        reading.join()
        if error := reading.error:
            with self._lock:
                if self._reading.get(layer) is reading:  # the next one who needs it tries again
                    del self._reading[layer]
            name = error.filename or self._folder
            raise BaseError(f"{name} can't be read: {error.strerror}.") from error
        with self._lock:
            self._begin(following)
            for done in self._reading.keys() - {layer, following}:
                del self._reading[done]

    def _begin(self, layer: int) -> _Reading:
        if layer not in self._reading:
            self._reading[layer] = _Reading(partial(self._read, layer))
            self._reading[layer].start()
        return self._reading[layer]

    def _read(self, layer: int) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        for tensor in self._tensors.get(layer, ()):
            with open(self._folder / tensor.file, "rb", buffering=0) as file:
                file.seek(tensor.start)
                left = tensor.end - tensor.start
                while left > 0 and (read := file.readinto(buffer[: min(left, _CHUNK)])):
                    left -= read


class _Reading(threading.Thread):
    """A layer that is being read, or has been. `error` is what stopped it."""

    def __init__(self, read: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._read = read
        self.error: OSError | None = None

    def run(self) -> None:
        """Read it."""
        try:
            self._read()
        except OSError as error:
            self.error = error


@dataclass(frozen=True)
class _Hook:
    """Called before a module runs that needs the weights of `layer`."""

    reader: ReadAhead
    layer: int
    following: int

    def __call__(self, module: nn.Module, args: tuple) -> None:
        if "forward" not in vars(module):  # otherwise something stands in, and needs no weights
            self.reader.need(self.layer, self.following)

    def __deepcopy__(self, memo: dict):
        return _nothing  # an independent copy of a module has its weights in memory


def _nothing(module: nn.Module, args: tuple) -> None:
    return None
