"""Startup tasks besides importing the library."""

from components.services import heavy_imports


def test_what_a_killed_conversion_left_in_the_cache_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    (tmp_path / ".model-0a1b.00000000.partial" / "new").mkdir(parents=True)
    (tmp_path / "model-2c3d").mkdir()
    heavy_imports.tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["model-2c3d"]


def test_no_cache_is_nothing_to_tidy(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "nowhere"))
    heavy_imports.tidy()
    assert not (tmp_path / "nowhere").exists()
