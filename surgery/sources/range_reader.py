"""Read a byte range of a remote file like a file, and resume where a connection broke.

huggingface_hub's `HfFileSystem` would do, but it does not check that it gets the range it asks for:
where a server ignores ranges it returns other bytes without an error.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

from surgery.errors import BaseError, one_line
from surgery.io.positioned import Positioned

# (start, end) -> the bytes in between, in pieces of any size
Request = Callable[[int, int], AbstractContextManager[Iterator[bytes]]]
PATIENCE = (1, 2, 4, 8)  # seconds before each further attempt


class RangeReader(Positioned):
    """Bytes [start, end) of a remote file. Positions are those of the whole file."""

    def __init__(self, name: str, request: Request, start: int, end: int) -> None:
        super().__init__(name, start)
        self._request, self._end = request, end
        self._line = ExitStack()
        self._pieces: Iterator[bytes] | None = None
        self._rest = b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Only from the start; anything but reading on costs a new request."""
        before = self._at
        if super().seek(offset, whence) != before:
            self._hang_up()
        return offset

    def readinto(self, into) -> int:
        """Raises `BaseError` after the last retry."""
        view = memoryview(into).cast("B")
        if not view or self._at >= self._end:
            return 0
        for pause in (*PATIENCE, None):
            try:
                piece = self._next()
                break
            except Exception as error:  # the client's errors are many; none is worth giving up for
                self._hang_up()
                if pause is None:
                    raise error if isinstance(error, BaseError) else self._lost(error) from error
                time.sleep(pause)
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        self._rest = piece[count:]
        self._at += count
        return count

    def _next(self) -> bytes:
        if self._rest:
            return self._rest
        if self._pieces is None:
            self._pieces = self._line.enter_context(self._request(self._at, self._end))
        piece = next((piece for piece in self._pieces if piece), b"")
        if not piece:
            raise EOFError("the server sent too little")
        return piece[: self._end - self._at]

    def _lost(self, error: Exception) -> BaseError:
        return BaseError(
            f"The connection to {self.name} broke ({one_line(error, 200)}). Check the network, try "
            "again."
        )

    def _hang_up(self) -> None:
        self._line.close()
        self._pieces, self._rest = None, b""

    def close(self) -> None:
        self._hang_up()
        super().close()
