"""Names of downloads, and where they wait."""

import os
import time

import pytest

from components.save import AS_STORED, Downloads, file_name, save
from surgery import Plan


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
