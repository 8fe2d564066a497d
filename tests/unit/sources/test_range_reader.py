"""Parts of remote files: read like files, taken up again where a line broke."""

import io
import random
from contextlib import contextmanager

import pytest

from surgery import BaseError
from surgery.sources import range_reader
from surgery.sources.range_reader import RangeReader

DATA = random.Random(0).randbytes(10_000)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("surgery.sources.range_reader.time.sleep", lambda seconds: None)


class Server:
    """Sends DATA in pieces; the first lines break after so many bytes as `breaks` says."""

    def __init__(self, *breaks, error: Exception | None = None):
        self.breaks, self.asked, self.open = list(breaks), [], 0
        self.error = error or ConnectionError("reset")

    @contextmanager
    def request(self, start, end):
        self.asked.append((start, end))
        self.open += 1
        try:
            yield self.pieces(start, end)
        finally:
            self.open -= 1

    def pieces(self, start, end):
        if self.breaks:
            yield DATA[start : start + self.breaks.pop(0)]
            raise self.error
        for at in range(start, end, 777):
            yield DATA[at : min(at + 777, end)]


def read(part, count):
    into = bytearray(count)
    view = memoryview(into)
    while view and (got := part.readinto(view)):
        view = view[got:]
    return bytes(into[: count - len(view)])


def test_it_reads_what_lies_there_and_no_more():
    server = Server()
    with RangeReader("x", server.request, 100, 9_000) as part:
        part.seek(100)
        assert read(part, 50_000) == DATA[100:9_000]
        assert server.asked == [(100, 9_000)]
        part.seek(200)
        assert read(part, 10) == DATA[200:210]
        assert server.asked[1:] == [(200, 9_000)] and server.open == 1
        with pytest.raises(io.UnsupportedOperation):
            part.fileno()
        with pytest.raises(io.UnsupportedOperation):
            part.seek(0, io.SEEK_END)
    assert server.open == 0


def test_a_broken_line_is_taken_up_where_it_broke():
    server = Server(1000, 0, 5, 0)
    with RangeReader("x", server.request, 0, 10_000) as part:
        assert read(part, 10_000) == DATA
    assert server.asked == [(at, 10_000) for at in (0, 1000, 1000, 1005, 1005)]


def test_patience_ends():
    server = Server(1000, *[0] * 100)
    with RangeReader("org/name/file", server.request, 0, 10_000) as part:
        assert read(part, 1000) == DATA[:1000]
        with pytest.raises(BaseError, match=r"The connection to org/name/file broke \(reset\)"):
            read(part, 1)
    assert len(server.asked) == 1 + len(range_reader.PATIENCE) and server.open == 0
    message = BaseError("The Hub can't be reached.")
    with RangeReader("x", Server(*[0] * 100, error=message).request, 0, 10) as part:
        with pytest.raises(BaseError) as caught:
            read(part, 1)
        assert caught.value is message


def test_a_server_that_sends_too_little_or_too_much():
    @contextmanager
    def little(start, end):
        yield iter([b"ab", b""])

    @contextmanager
    def much(start, end):
        yield iter([b"abc" * 100])

    with RangeReader("x", little, 0, 10) as part:
        assert read(part, 10) == b"ab" * 5  # each attempt goes on behind the last
    with RangeReader("x", much, 0, 10) as part:
        assert read(part, 1000) == (b"abc" * 4)[:10]
