"""Startup tasks besides importing the library."""

import gc
import sys

import pytest

import app
from components.services import heavy_imports, public_storage
from surgery.compute import choice


def test_what_a_killed_conversion_left_in_the_cache_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    (tmp_path / ".model-0a1b.00000000.partial" / "new").mkdir(parents=True)
    (tmp_path / "merged" / ".model+lora.00000000.partial" / "new").mkdir(parents=True)
    (tmp_path / "model-2c3d").mkdir()
    heavy_imports.tidy()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["merged", "model-2c3d"]


def test_no_cache_is_nothing_to_tidy(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "nowhere"))
    heavy_imports.tidy()
    assert not (tmp_path / "nowhere").exists()


def test_the_app_takes_the_compute_dtype(monkeypatch):
    """Said of an app that ends before it serves: a public page opens no folders."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--public", "--base=/", "--compute-dtype=float32"])
    monkeypatch.setattr(public_storage, "prepare", lambda: None)  # of the whole process
    try:
        with pytest.raises(SystemExit, match=r"^--base /: On a public page"):
            app.main()
        # On an accelerator that is what was chosen, or else the stored dtype.
        assert choice.compute_dtype_of("bfloat16", True, False, lambda _: None) == "float32"
    finally:
        choice.set_compute_dtype(None)
        gc.enable()
