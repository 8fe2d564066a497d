"""A file-like object that is read from a position, and has no file behind it."""

from __future__ import annotations

import io


class Positioned(io.RawIOBase):
    """Seeks from the start only. Subclasses implement `readinto`, which reads at `_at` and moves
    it. It has no file descriptor, so it is copied through a buffer."""

    def __init__(self, name: str, start: int = 0) -> None:
        super().__init__()
        self.name, self._at = name, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Only from the start."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("seek from elsewhere than the start")
        self._at = offset
        return offset
