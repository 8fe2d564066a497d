"""The budget for bases: one copy for all, the least recently used let go, never one in use."""

import shutil
import weakref
from pathlib import Path

import pytest

from components.services.bases import Bases
from components.services.deployment import Deployment
from surgery import Base, BaseError
from surgery.progress import silent


@pytest.fixture
def bases():
    return Bases()


@pytest.fixture
def specs(tiny_folder, tmp_path):
    """Four tiny bases."""
    families = ("llama", "qwen2", "qwen3", "gpt2")
    return [str(shutil.copytree(tiny_folder(name), tmp_path / name)) for name in families]


def test_a_few_bases_are_kept_open_and_the_oldest_closed(specs):
    bases = Bases(most=3)
    first = bases.get(specs[0])
    assert bases.get(specs[0]) is first
    for spec in specs[1:]:
        bases.get(spec)
    assert bases.names == specs[1:]


def test_a_base_whose_files_changed_is_opened_again_where_it_is_opened(bases, specs):
    """As the error message asks; a page that shows it has a plan of what it was."""
    first = bases.get(specs[0])
    path = Path(specs[0], "config.json")
    path.write_text(path.read_text() + "\n")
    with pytest.raises(BaseError, match="open it again"):
        first.load()
    assert bases.get(specs[0]) is first
    bases.refresh(specs[0])
    again = bases.get(specs[0])
    assert again is not first and again.load()
    bases.refresh(specs[0])
    assert bases.get(specs[0]) is again
    path.unlink()
    bases.refresh(specs[0])
    with pytest.raises(BaseError, match=r"has no config\.json"):
        bases.get(specs[0])
    assert specs[0] not in bases.names


def test_weights_beyond_the_budget_go_those_used_least_lately_first(bases, specs, monkeypatch):
    size = bases.load(specs[0], silent).memory_bytes
    monkeypatch.setattr(bases, "budget", lambda: 3 * size)
    for spec in specs[1:3]:
        bases.load(spec, silent)
    bases.get(specs[0])  # used again
    bases.load(specs[3], silent)
    assert specs[1] not in bases.names and specs[0] in bases.names
    assert bases.loaded_bytes() <= 3 * size


def test_a_strangers_config_has_a_limited_time(tiny_folder, monkeypatch):
    """The cost is only known after building it: many layers, experts and heads."""
    bases = Bases(Deployment.of(public=True))
    monkeypatch.setattr(Deployment, "check_spec", lambda *a: None)
    spec = f"config:{tiny_folder('llama')}/config.json,num_hidden_layers=9"
    bases.longest = 0.0
    with pytest.raises(BaseError, match="longer than this public page allows"):
        bases.get(spec, silent)
    bases.longest = 60.0
    base = bases.get(spec, silent)
    bases.longest = 0.0
    with pytest.raises(BaseError, match="longer than this public page allows"):
        bases.load(spec, silent)
    assert not base.is_loaded
    bases.longest = 60.0
    assert bases.load(spec, silent).is_loaded


def test_what_is_in_use_stays_whatever_is_asked_for(bases, specs, monkeypatch):
    first = bases.load(specs[0], silent)
    monkeypatch.setattr(bases, "budget", lambda: 0)
    with bases.in_use(first):
        bases.load(specs[1], silent)
        bases.load(specs[2], silent)
        assert specs[0] in bases.names and specs[1] not in bases.names
        assert bases.load(specs[0], silent) is first
    bases.load(specs[3], silent)
    assert bases.names == [specs[3]]


def test_memory_comes_back_with_the_base(bases, specs, monkeypatch):
    model = weakref.ref(bases.load(specs[0], silent).model)
    assert model() is not None
    monkeypatch.setattr(bases, "budget", lambda: 0)
    bases.load(specs[1], silent)
    assert model() is None


def test_room_is_made_for_the_one_that_is_asked_for(bases, specs, monkeypatch):
    first, second = specs[:2]
    bases.load(first, silent)
    real, tries = Base.load, []

    def full_at_first(self, progress=None):
        tries.append(1)
        if len(tries) == 1:
            raise BaseError("The weights need more than is free.")
        return real(self)

    monkeypatch.setattr(Base, "load", full_at_first)
    assert bases.load(second, silent).is_loaded
    assert first not in bases.names
