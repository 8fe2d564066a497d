"""A tensor of a new checkpoint: its name, dtype and shape, and where its bytes come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from surgery.sources.safetensors_header import BITS
from surgery.sources.source import Opener


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the new checkpoint: `size` bytes.

    Its bytes are the `stored` bytes at `start` in the base's `file`, as they are, or each value
    passed through `change`: a function of a stretch of values that gives as many. Or they are what
    `make` yields, one stretch after the other, from several places or from none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    file: str = ""
    start: int = 0
    stored: int = 0
    change: Callable[[bytearray], memoryview] | None = None
    copy: int = 0  # 0 for the first appearance of a stored tensor, 1 for the second, …
    make: Callable[[Opener], Iterator[memoryview]] | None = None
    trained: bool = False  # `make` yields what training made of it

    @property
    def width(self) -> int:
        """Bits of one value."""
        return BITS[self.dtype]

    @property
    def as_stored(self) -> bool:
        """Are its bytes the base's own?"""
        return self.change is None and self.make is None
