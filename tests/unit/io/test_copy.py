"""Bytes from file to file: every way gives the same, whatever fails on the way."""

import errno
import io
import os
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery import BaseError, Cancelled
from surgery.io.copy import WAYS, Mover, at_once, by_buffer, equal, is_hole, open_file
from surgery.progress import Meter, silent

MB = 1 << 20


def meter(progress=silent):
    return Meter(progress, "", 0)


@pytest.fixture
def files(tmp_path):
    """A source of 3 MB and 5 bytes, and an empty target."""
    (tmp_path / "source").write_bytes(random.Random(0).randbytes(3 * MB + 5))
    (tmp_path / "target").touch()
    with (
        open(tmp_path / "source", "rb", buffering=0) as source,
        open(tmp_path / "target", "r+b", buffering=0) as target,
    ):
        yield source, target


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("start", "at", "size"), [(0, 0, 3 * MB + 5), (7, 4096, 2 * MB), (5, 3, 1)]
)
def test_each_way_moves_the_same(files, monkeypatch, way, start, at, size):
    monkeypatch.setattr("surgery.io.copy.CHUNK", 700_000)
    source, target = files
    done = []
    Mover([way]).move(source, start, target, at, size, meter(lambda _, d, t: done.append(d)))
    source.seek(start)
    target.seek(0)
    assert target.read() == bytes(at) + source.read(size)
    assert done[-1] == size and done == sorted(done) and len(done) == 1 + -(-size // 700_000)
    assert equal(source, start, target, at, size, meter())


@pytest.mark.parametrize("code", ["EXDEV", "EINVAL", "ENOSYS", "EOPNOTSUPP", "EIO", "nothing"])
def test_a_way_that_fails_is_left_for_the_next(files, monkeypatch, code):
    monkeypatch.setattr("surgery.io.copy.CHUNK", 1 << 19)
    source, target = files
    calls = []

    def fails(*job):
        calls.append(job)
        if code == "nothing":  # what some file systems say to copy_file_range
            return 0
        raise OSError(getattr(errno, code), "can't")

    Mover([fails, by_buffer]).move(source, 0, target, 0, 3 * MB, meter())
    assert equal(source, 0, target, 0, 3 * MB, meter()) and len(calls) <= 1


def test_the_faster_way_is_kept(files, monkeypatch):
    monkeypatch.setattr("surgery.io.copy.CHUNK", 1 << 14)
    now = [0.0]
    monkeypatch.setattr("surgery.io.copy.time.perf_counter", lambda: now[0])
    calls = {"slow": 0, "fast": 0}

    def way(name, seconds):
        def move(*job):
            calls[name] += 1
            now[0] += seconds
            return by_buffer(*job)

        return move

    source, target = files
    Mover([way("slow", 2), way("fast", 1)], trials=3).move(source, 0, target, 0, 3 * MB, meter())
    assert calls == {"slow": 3, "fast": 3 * MB // (1 << 14) - 3}


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_ends_early(files, way):
    source, target = files
    with pytest.raises(BaseError, match="ended early"):
        Mover([way, by_buffer]).move(source, 0, target, 0, 4 * MB, meter())


def test_trouble_with_reading_is_told_from_trouble_with_writing(files, tmp_path):
    source, target = files

    class Broken(io.RawIOBase):
        name = "broken"

        def seekable(self):
            return True

        def seek(self, offset, whence=0):
            return offset

        def readinto(self, into):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(BaseError, match=r"broken can't be read: Input/output error\."):
        Mover().move(Broken(), 0, target, 0, 10, meter())
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(OSError, match="No space"):
        Mover([by_buffer]).move(source, 0, full, 0, 10, meter())
    with pytest.raises(BaseError, match="nowhere can't be read: No such file"):
        open_file(tmp_path / "nowhere", 0, 1)


def test_a_move_can_be_stopped_between_chunks(files, monkeypatch):
    monkeypatch.setattr("surgery.io.copy.CHUNK", 1 << 16)
    source, target = files

    def stop(what, done, total):
        if done > MB:
            raise Cancelled

    with pytest.raises(Cancelled):
        Mover().move(source, 0, target, 0, 3 * MB, meter(stop))
    assert MB < os.fstat(target.fileno()).st_size < MB + (1 << 17)


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Two files of the same 3 MB and 5 bytes."""
    folder = tmp_path_factory.mktemp("twins")
    for name in ("a", "b"):
        (folder / name).write_bytes(random.Random(1).randbytes(3 * MB + 5))
    with (
        open(folder / "a", "rb", buffering=0) as one,
        open(folder / "b", "r+b", buffering=0) as other,
    ):
        yield one, other


@given(st.integers(0, 3 * MB + 4))
def test_one_wrong_byte_is_found(twins, at):
    one, other = twins

    def flip():
        other.seek(at)
        (byte,) = other.read(1)
        other.seek(at)
        other.write(bytes([byte ^ 1]))

    flip()
    try:
        assert not equal(one, 0, other, 0, 3 * MB + 5, meter())
    finally:
        flip()


def test_equal_files_are_found_equal(twins):
    one, other = twins
    assert equal(one, 0, other, 0, 3 * MB + 5, meter())


def test_holes_stay_holes(tmp_path):
    """64 GB that take no room, moved and compared in an instant."""
    size = 1 << 36
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(size)
        file.seek(MB)
        file.write(b"data")
    (tmp_path / "copy").touch()
    with (
        open(tmp_path / "holes", "rb", buffering=0) as source,
        open(tmp_path / "copy", "r+b", buffering=0) as target,
    ):
        assert is_hole(source, 10 * MB, size) and not is_hole(source, 0, size)
        assert not is_hole(source, size - 1, size + 1)  # behind its end there is nothing at all
        Mover().move(source, 0, target, 0, size, meter())
        target.truncate(size)
        assert os.fstat(target.fileno()).st_blocks * 512 < 100 * MB
        target.seek(MB)
        assert target.read(4) == b"data"


def test_the_first_error_stops_all():
    counted, reports = meter(), []
    begun = threading.Event()

    def fails():
        begun.wait(10)
        raise BaseError("broken")

    def goes_on():
        begun.set()
        try:
            while True:
                counted.add(1)
        except Cancelled:
            reports.append("stopped")
            raise

    with pytest.raises(BaseError, match="broken"):
        at_once([fails, goes_on, *[lambda: reports.append("begun too late")] * 100], counted, 2)
    assert reports == ["stopped"]
