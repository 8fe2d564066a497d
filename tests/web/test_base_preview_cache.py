"""Bases as they are remembered, and how a page opens one before the library is there."""

import os
from types import SimpleNamespace

import pytest

from components.panels.base.wiring import open_for
from components.services import base_preview_cache, heavy_imports
from components.services.services import Services
from components.sessions.session import Session
from surgery import Base, BaseError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(tiny_folder, tmp_path):
    """A base in a folder that may be written to."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_folder("gemma3_text").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_base_is_remembered_until_its_config_is_another(copy):
    spec = str(copy)
    assert base_preview_cache.recall(spec) is None
    base = Base.open(spec)
    base_preview_cache.remember(spec, base)
    look = base_preview_cache.recall(spec)
    assert (look.name, look.depth, look.kinds) == (base.name, base.depth, base.kinds)
    assert base_preview_cache.recall("another") is None
    config = copy / "config.json"
    os.utime(config, ns=(1, 1))
    assert base_preview_cache.recall(spec) is None
    base_preview_cache.remember(spec, base)
    assert base_preview_cache.recall(spec) == look
    config.unlink()
    assert base_preview_cache.recall(spec) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', '{"x": {"file": [], "preview": {}}}'])
def test_a_broken_memory_is_none(own_cache, copy, text):
    own_cache.mkdir()
    (own_cache / "looks.json").write_text(text)
    assert base_preview_cache.recall("x") is None
    base_preview_cache.remember(str(copy), Base.open(str(copy)))
    assert base_preview_cache.recall(str(copy)).depth == 6


def test_so_many_are_kept_and_no_more(copy):
    base = Base.open(str(copy))
    for i in range(25):
        base_preview_cache.remember(f"spec {i}", base)
    assert (
        base_preview_cache.recall("spec 4") is None
        and base_preview_cache.recall("spec 5").depth == 6
    )


def opened(services: Services, spec: str, plan: str = "") -> list:
    return list(open_for(services, Session(), spec, plan, None))


def test_layers_are_drawn_before_the_library_is_there(services, copy, monkeypatch):
    spec = str(copy)
    opened(services, spec)  # once, so that it is remembered
    monkeypatch.setattr(heavy_imports, "is_ready", lambda: False)
    session = Session()
    steps = open_for(services, session, spec, "0:4", None)
    _, strip, tiles, _ = next(steps)
    assert len(strip["patient"]) == 4 and strip["depth"] == 6
    assert not (isinstance(tiles, dict) and tiles.get("tiles"))
    session.apply({"op": "write", "text": "0:2", "revision": strip["revision"]})
    *_, (_, strip, tiles, _) = steps
    assert strip["text"] == "0:2"  # what was done meanwhile stays
    assert tiles["parameters"]["base"] > tiles["parameters"]["patient"] > 0


def test_a_memory_that_was_wrong_is_drawn_over(services, copy, monkeypatch):
    monkeypatch.setattr(heavy_imports, "is_ready", lambda: False)
    wrong = base_preview_cache.BasePreview("other", 3, ("",) * 3)
    monkeypatch.setattr(base_preview_cache, "recall", lambda spec: wrong)
    steps = opened(services, str(copy), "0:2")
    assert steps[0][1]["depth"] == 3
    assert steps[-1][1]["depth"] == 6 and steps[-1][1]["text"] == "0:2"


def test_what_can_not_be_opened_after_all_is_said(services, copy, monkeypatch):
    monkeypatch.setattr(heavy_imports, "is_ready", lambda: False)
    monkeypatch.setattr(
        base_preview_cache, "recall", lambda spec: base_preview_cache.BasePreview("x", 1, ("",))
    )

    def fails(spec, progress):
        raise BaseError("It is gone.")

    monkeypatch.setattr(services.bases, "get", fails)
    steps = opened(services, str(copy))
    assert steps[-1][0] == {"text": "It is gone.", "share": None, "failed": True}


def test_a_public_page_remembers_nothing(public_services, own_cache, copy, monkeypatch):
    base = Base.open(str(copy))
    monkeypatch.setattr(public_services.bases, "get", lambda *_: base)
    monkeypatch.setattr(heavy_imports, "is_ready", lambda: False)
    monkeypatch.setattr(base_preview_cache, "recall", lambda spec: pytest.fail("recalled"))
    steps = opened(public_services, "org/model")
    assert steps[-1][1]["depth"] == 6
    assert not own_cache.exists()


def test_a_base_without_files_is_not_remembered():
    base_preview_cache.remember("x", SimpleNamespace(source=SimpleNamespace(home=None)))
    assert base_preview_cache.recall("x") is None
