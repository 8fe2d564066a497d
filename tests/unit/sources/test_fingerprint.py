"""Names of weights: equal for equal contents, and never those of files that have changed."""

import os
import shutil

import pytest

from surgery import Base, BaseError
from surgery.analysis.cache import lasting_name
from surgery.progress import silent
from surgery.sources import fingerprint as fingerprint_module
from surgery.sources.fingerprint import fingerprint


@pytest.fixture
def folder(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(tiny_folder("llama"), tmp_path / "model")


def test_it_follows_from_the_contents(folder, tmp_path):
    name = fingerprint(Base.open(str(folder)).source, silent)
    other = Base.open(str(shutil.copytree(folder, tmp_path / "other"))).source
    assert fingerprint(other, None) is None  # nothing is read
    assert fingerprint(other, silent) == fingerprint(other, None) == name


def test_weights_in_memory_don_t_get_the_name_of_others_on_disk(folder):
    """What is measured of them would be kept as that of the others."""
    base = Base.open(str(folder))
    base.load()
    os.utime(folder / "model.safetensors", (1, 1))
    with pytest.raises(BaseError, match="open it again"):
        lasting_name(base, silent)
    assert lasting_name(base, None) is None
    assert lasting_name(Base.open(str(folder)), silent)


def test_the_hash_of_a_file_that_changes_meanwhile_is_not_remembered(folder, monkeypatch):
    source = Base.open(str(folder)).source

    def changed(path, meter, hash_=fingerprint_module._hash):
        result = hash_(path, meter)
        os.utime(path, (1, 1))
        return result

    monkeypatch.setattr(fingerprint_module, "_hash", changed)
    assert fingerprint(source, silent)
    assert fingerprint(source, None) is None
