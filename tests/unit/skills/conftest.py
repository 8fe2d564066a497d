"""Margins are measured anew in each test: a cache would hide a change of the engine."""

import pytest

from surgery.skills import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    cache._memory.clear()
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
