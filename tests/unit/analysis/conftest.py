"""Tiny bases with a text, and a cache of the test's own."""

import pytest

from surgery import Base
from surgery.analysis import Sample
from surgery.analysis.cache import _memory

TEXT = "The ferry ran twice a day in summer and not at all when the wind stood in the north. "


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, request):
    """Measurements of one test don't reach another. The bundled model stays where it is."""
    if "bundled" in request.fixturenames:
        request.getfixturevalue("bundled")
    _memory.clear()
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def opened(tiny_folder):
    """A function: the base of a family, and a sample of three windows of 40 tokens or so."""

    def opened(family, window=43):
        base = Base.open(str(tiny_folder(family)))
        return base, Sample.of(base, TEXT + TEXT[:40], window)

    return opened
