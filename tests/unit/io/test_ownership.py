"""Temporary folders: removed by their process, or when the next one starts."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from surgery.io.atomic import atomic_folder
from surgery.io.ownership import left_behind, own, temporary

ROOT = Path(__file__).parents[3]
CODE = """
import atexit, sys
from surgery.io.atomic import atomic_folder
from surgery.io.ownership import temporary
folder, remove = temporary("mine-")
atexit.register(remove)
(folder / "file").touch()
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def start(place):
    """A function that starts another process with a temporary folder; returns both."""
    running = []

    def begin():
        process = subprocess.Popen(
            [sys.executable, "-c", CODE],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(place)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process, Path(process.stdout.readline().strip())

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_one_that_was_killed_goes_with_the_next(start, place):
    (place / "mine-else").mkdir()  # without a lock, so the owner is unknown
    (killed, left), (_, kept) = start(), start()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (left / "file").exists()
    folder, remove = temporary("mine-")
    assert not left.parent.exists() and (kept / "file").exists()
    assert sorted(place.iterdir()) == sorted([folder.parent, kept.parent, place / "mine-else"])
    remove()
    assert not folder.parent.exists()


def test_one_that_ends_takes_it_along(start, place):
    process, _ = start()
    process.communicate("")
    assert process.returncode == 0 and not list(place.iterdir())


def test_links_are_left_alone(place):
    """An unrelated folder with a similar name."""
    other = place / "other"
    other.mkdir()
    (other / "lock").touch()
    (place / "mine-link").symlink_to(other)
    temporary("mine-")[1]()
    assert (other / "lock").exists()


def free(folder):
    with left_behind(folder, ["inner"]) as result:
        return result


def test_held_until_it_is_released(tmp_path):
    """Also within one process, where the process id doesn't help."""
    folder = tmp_path / "held"
    lock = own(folder, "inner")
    assert not free(folder)
    lock.release()
    assert free(folder)


def test_one_that_is_just_being_made_is_left_alone(tmp_path):
    """A folder that is not locked yet becomes a leftover only after an hour."""
    assert not free(tmp_path)
    (tmp_path / "lock").touch()
    assert not free(tmp_path)
    os.utime(tmp_path, (0, 0))
    assert free(tmp_path)


def test_many_at_once(tmp_path):
    """Threads that create, lock, sweep and remove in one folder don't remove each other's."""
    errors = []

    def work(name):
        try:
            for number in range(60):
                with atomic_folder(tmp_path / f"{name}-{number}", 1) as partial:
                    (partial / "mine").touch()
                assert (tmp_path / f"{name}-{number}" / "mine").is_file()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
