"""Small files: written completely or unchanged, and partial files are removed."""

import os

import pytest

from surgery.io.cache_file import whole_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "file"
    with whole_file(path) as file:
        file.write(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half of the ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and names(path.parent) == ["file"]
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and names(path.parent) == ["file"]


def test_what_a_killed_process_left_goes_after_an_hour(tmp_path):
    for name, age in ((".a.npz.0a1b2c3d.part", 4000), (".b.0a1b2c3d.part", 60), (".mine", 4000)):
        (tmp_path / name).touch()
        time = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (time, time))
    with whole_file(tmp_path / "file"):
        pass
    assert names(tmp_path) == [".b.0a1b2c3d.part", ".mine", "file"]
