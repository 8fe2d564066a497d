"""Names of downloads, and where they wait."""

import os
import time

import pytest

from components import bases
from components.save import AS_STORED, Downloads, file_name, save
from surgery import Base, BaseError, Plan


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("my patient", "my-patient"),
        ("../../etc/passwd", "passwd"),
        ("..", ""),
        ("a\0b\nc", "a-b-c"),
        ("<b>x</b>", "b"),
        (".hidden", "hidden"),
        ("x" * 300, "x" * 80),
        (None, ""),
    ],
)
def test_a_name_is_safe_whatever_was_typed(typed, name):
    assert file_name(typed) == name


def test_each_session_has_a_folder_that_nobody_can_guess():
    downloads = Downloads()
    one, two = downloads.of("one"), downloads.of("two")
    assert one != two and "one" not in one.name and len(one.name) == 64
    (one / "x.zip").write_bytes(b"x")
    downloads.forget("one")
    assert not one.exists() and two.exists()
    an_age_ago = time.time() - 4000
    os.utime(two, (an_age_ago, an_age_ago))
    downloads.of("three")
    assert not two.exists()


def test_a_save_that_fails_says_why_and_leaves_nothing(tiny_folder, tmp_path):
    spec = str(tiny_folder("qwen2"))
    updates = list(save(spec, Plan.parse("0:3@average", 6), "x", AS_STORED, tmp_path, True))
    assert updates[-1][0]["failed"] and "@average" in updates[-1][0]["text"]
    assert not list(tmp_path.iterdir())


def test_a_download_is_one_file(tiny_folder, tmp_path):
    spec = str(tiny_folder("llama"))
    *_, (status, button, snippet) = save(spec, Plan.parse("0:3", 6), "", "bfloat16", tmp_path, True)
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".zip" and button["value"] == str(path)
    assert path.name in status["text"] and path.stem in snippet["value"]


def test_a_few_bases_are_kept_and_the_oldest_let_go(tiny_folder):
    specs = [str(tiny_folder(family)) for family in ("llama", "qwen2", "qwen3", "gpt2")]
    first = bases.get(specs[0])
    assert bases.get(specs[0]) is first
    for spec in specs[1:]:
        bases.get(spec)
    assert specs[0] not in bases._bases and specs[3] in bases._bases


def test_room_is_made_for_the_one_that_is_asked_for(tiny_folder, monkeypatch):
    first, second = (str(tiny_folder(family)) for family in ("llama", "qwen2"))
    bases.load(first, lambda *a: None)
    real, tries = Base.load, []

    def full_at_first(self, progress=None):
        tries.append(1)
        if len(tries) == 1:
            raise BaseError("The weights need more than is free.")
        return real(self)

    monkeypatch.setattr(Base, "load", full_at_first)
    assert bases.load(second, lambda *a: None).is_loaded
    assert first not in bases._bases


def test_strangers_may_not_name_places_of_this_machine(tmp_path):
    for spec in (str(tmp_path), "config:/etc/passwd", "x.gguf", "~", "./x"):
        with pytest.raises(BaseError, match="public page"):
            bases.check_allowed(spec, public=True)
        bases.check_allowed(spec, public=False)
    for spec in ("bundled", "org/name", "org/name@main"):
        bases.check_allowed(spec, public=True)
