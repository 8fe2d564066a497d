"""Arrays that are kept on disk: what comes back, what counts as absent, and what is deleted."""

import os

import numpy as np
import pytest

from surgery.io.array_cache import ArrayCache


def test_an_entry_comes_back_as_it_was(tmp_path):
    cache = ArrayCache(tmp_path / "new", groups=2, version=1)
    assert cache.get("model", "losses") is None
    losses, counts = np.array([0.5, np.nan], np.float32), np.arange(3)
    cache.put("model", "losses", {"losses": losses, "counts": counts})
    entry = ArrayCache(tmp_path / "new", groups=2, version=1).get("model", "losses")
    assert entry.keys() == {"losses", "counts"}
    np.testing.assert_array_equal(entry["losses"], losses)
    assert entry["losses"].dtype == np.float32 and entry["counts"].tolist() == [0, 1, 2]
    assert cache.get("model", "other") is None and cache.get("other", "losses") is None


@pytest.mark.parametrize("size", [0, 100])
def test_a_damaged_file_is_absent_until_it_is_written_again(tmp_path, size):
    cache = ArrayCache(tmp_path, groups=2, version=1)
    cache.put("model", "losses", {"values": np.ones(50)})
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:size])
    assert cache.get("model", "losses") is None
    cache.put("model", "losses", {"values": np.zeros(50)})
    assert not cache.get("model", "losses")["values"].any()


def test_pickles_are_not_loaded(tmp_path):
    cache = ArrayCache(tmp_path, groups=2, version=1)
    cache.put("model", "losses", {"values": np.array([print], dtype=object)})
    assert list(tmp_path.rglob("*.npz")) and cache.get("model", "losses") is None


def test_another_version_reads_nothing(tmp_path):
    ArrayCache(tmp_path, groups=2, version=1).put("model", "losses", {"values": np.ones(2)})
    assert ArrayCache(tmp_path, groups=2, version=2).get("model", "losses") is None


def test_the_oldest_groups_are_deleted(tmp_path):
    cache = ArrayCache(tmp_path, groups=2, version=1)
    for age, group in enumerate(("a", "b")):
        cache.put(group, "x", {"values": np.ones(1)})
        os.utime(cache._folder(group), (1000 + age, 1000 + age))
    cache.put("a", "y", {"values": np.ones(1)})  # now “b” is the oldest
    cache.put("c", "x", {"values": np.ones(1)})
    known = [group for group in "abc" if cache.get(group, "x")]
    assert known == ["a", "c"] and len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ArrayCache(tmp_path / "file", groups=2, version=1)
    cache.put("model", "losses", {"values": np.ones(1)})
    assert cache.get("model", "losses") is None
    cache.delete("model")


def test_a_deleted_group_is_absent(tmp_path):
    cache = ArrayCache(tmp_path, groups=2, version=1)
    for group in "ab":
        cache.put(group, "x", {"values": np.ones(1)})
    cache.delete("a")
    assert cache.get("a", "x") is None and cache.get("b", "x") is not None
