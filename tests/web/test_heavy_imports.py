"""Startup tasks besides importing the library."""

from components.services import heavy_imports


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


def test_the_app_takes_the_compute_dtype(warm):
    """Said of an app that ends before it serves: a public page opens no folders."""
    code = (
        "import sys, app; from surgery.compute import choice\n"
        "sys.argv = ['app.py', '--public', '--base=/', '--compute-dtype=float32']\n"
        "try: app.main()\n"
        "except SystemExit as end: print(choice._chosen, end)"
    )
    done = warm.run("-c", code)
    assert done.stdout.startswith("float32 --base /: On a public page"), done.stderr
