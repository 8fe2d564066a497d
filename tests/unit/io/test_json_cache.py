"""JSON values that are kept on disk: what comes back, what counts as absent, what is deleted."""

import os

import pytest

from surgery.io.json_cache import JsonCache


@pytest.fixture
def cache(tmp_path):
    return JsonCache(tmp_path / "cache", most=2)


def test_a_value_comes_back(cache, tmp_path):
    assert cache.get("a") is None
    cache.put("a", {"x": [1, 2.5, None]})
    again = JsonCache(tmp_path / "cache", most=2)
    assert again.get("a") == {"x": [1, 2.5, None]} and again.get("b") is None


def test_a_key_may_be_a_path_that_is_not_utf_8(cache):
    cache.put(os.fsdecode(b"mod\xffel"), 1)
    assert cache.get(os.fsdecode(b"mod\xffel")) == 1 and cache.get("model") is None


def test_a_value_lasts_as_long_as_its_files(cache, tmp_path):
    file = tmp_path / "model" / "file"
    file.parent.mkdir()
    file.write_text("one")
    cache.put("a", 1, [file, file.parent])
    assert cache.get("a") == 1
    os.utime(file, (1, 1))
    assert cache.get("a") is None
    cache.put("a", 1, [file])
    file.unlink()
    assert cache.get("a") is None
    cache.put("b", 1, [file])  # it isn't there, so that nothing would tell when the value ends
    assert cache.get("b") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "1", '{"value": 1}', '{"files": [1]}'])
def test_a_damaged_file_is_absent_until_it_is_written_again(cache, content):
    cache.put("a", 1)
    (file,) = cache.folder.iterdir()
    file.write_text(content)
    assert cache.get("a") is None
    cache.put("a", 2)
    assert cache.get("a") == 2


def test_the_oldest_are_deleted(cache):
    for age, key in enumerate("ab"):
        cache.put(key, key)
        os.utime(cache._path(key), (1000 + age, 1000 + age))
    cache.put("c", "c")
    assert [cache.get(key) for key in "abc"] == [None, "b", "c"]
    assert len(list(cache.folder.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    cache = JsonCache(tmp_path / "file", most=2)
    cache.put("a", 1)
    assert cache.get("a") is None
