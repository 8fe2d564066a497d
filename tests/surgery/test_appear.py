"""Where a checkpoint may go: hostile places, two at once, what died on the way."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from surgery import Base, Cancelled, Plan, SaveError
from surgery.appear import appearing

WHOLE = Plan.whole(6)
DEAD = 99_999_999  # above the largest process id of any system


@pytest.fixture
def base(tiny_folder):
    return Base.open(str(tiny_folder("llama")))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_base_is_never_overwritten(tiny_folder, tmp_path):
    home = tmp_path / "models" / "base"
    shutil.copytree(tiny_folder("llama"), home)
    (home.parent / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(home)
    for spec in (str(home), f"config:{home}/config.json"):
        for out in (home, home.parent, tmp_path / "link"):
            with pytest.raises(SaveError, match="base itself lies in"):
                Base.open(spec).save(WHOLE, out, overwrite=True)
    assert names(home) == names(tiny_folder("llama"))


def test_only_a_model_s_folder_is_ever_replaced(base, tmp_path):
    """`--overwrite` with the wrong name must not cost anyone a home folder."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(SaveError, match="holds no model, so it is not replaced"):
        base.save(WHOLE, tmp_path / "thesis", overwrite=True)
    (tmp_path / "empty").mkdir()
    base.save(WHOLE, tmp_path / "empty")
    assert names(tmp_path) == ["empty", "thesis"]


def test_links_are_followed_and_kept(base, tmp_path):
    (tmp_path / "link").symlink_to("target")
    for times in (1, 2):
        base.save(Plan.parse(f"0:2*{times}", 6), tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and names(tmp_path) == ["link", "target"]
    config = json.loads((tmp_path / "target" / "config.json").read_text())
    assert config["num_hidden_layers"] == 4


@pytest.mark.parametrize("name", ["loop", "loop/x", "file/x", "n" * 300, "~no_such_user/x", "a\0b"])
def test_places_that_are_none(base, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SaveError, match=r"no place to write to|could not be written"):
        base.save(WHOLE, name)
    assert names(tmp_path) == ["file", "loop"]


def test_names_that_mean_something_to_someone(base, tmp_path):
    """To a shell's patterns, a terminal, Markdown, YAML, or no one: bytes that are not UTF-8."""
    for name in ("[a]*", "a\nb: [x](y)", "\udce9", "---"):
        out = base.save(WHOLE, tmp_path / name)
        assert out.name == name
        assert {"config.json", "README.md", "recipe.yaml"} <= set(names(out))


def test_a_place_without_permission(base, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(SaveError, match="can't be written to"):
        base.save(WHOLE, tmp_path / "out")
    assert not names(tmp_path)


def test_files_may_not_grow_any_more(tiny_folder, tmp_path):
    """A real refusal by the system in mid-file, as on a disk that is full."""
    code = (
        "import resource, sys; from surgery import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: Base.open(sys.argv[1]).save(Plan.whole(6), sys.argv[2])\n"
        "except SaveError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tiny_folder("llama")), str(tmp_path / "out")]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    assert said == f"{tmp_path}/out could not be written: File too large\n"
    assert not names(tmp_path)


def test_two_at_once_to_one_place(base, tmp_path):
    """The first to finish has it; the other is told, and nothing is mixed."""
    both = threading.Barrier(2)
    ends = []

    def save(text):
        def together(what, done, total):
            if not done:
                both.wait()

        try:
            ends.append(base.save(Plan.parse(text, 6), tmp_path / "out", progress=together).name)
        except SaveError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=save, args=(text,)) for text in ("0:2", "0:6*3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "out" in ends and len(ends) == 2
    assert any("exists already" in end or "not empty" in end for end in ends)
    assert names(tmp_path) == ["out"]
    depth = json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"]
    assert Base.open(str(tmp_path / "out")).preview(Plan.whole(depth)).layers == depth


def test_who_comes_last_replaces_nothing(tmp_path):
    """The other finishes after we looked at the place and before we take it."""
    out = tmp_path / "out"
    with pytest.raises(SaveError, match="exists already"), appearing(out, 1):
        out.mkdir()
        (out / "theirs").touch()
    assert names(tmp_path) == ["out"] and names(out) == ["theirs"]


def test_what_dead_processes_left_is_swept_and_the_living_are_left_alone(tmp_path):
    living = f".out.{os.getppid()}-00000000.partial"
    others = [living, ".out.notes", ".out2.1-00000000.partial", "outer"]
    for name in (*others, f".out.{DEAD}-00000000.partial", f".out.{DEAD}-00000001.old"):
        (tmp_path / name).mkdir()
    with appearing(tmp_path / "out", 1, overwrite=True) as partial:
        (partial / "new").touch()
    assert names(tmp_path) == sorted([*others, "out"]) and names(tmp_path / "out") == ["new"]


def test_what_was_put_aside_comes_back(tmp_path):
    """Killed between the two renames of a replacement: the old model is still there."""
    aside = tmp_path / f".out.{DEAD}-00000000.old"
    aside.mkdir()
    (aside / "mine").touch()
    with pytest.raises(SaveError, match="exists already"), appearing(tmp_path / "out", 1):
        raise AssertionError("begun although something is there")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["mine"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Cancelled, MemoryError])
def test_whatever_stops_it_nothing_is_left_and_the_old_stays(tmp_path, monkeypatch, stop):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(stop), appearing(tmp_path / "out", 1, overwrite=True) as partial:
        (partial / "half").touch()
        raise stop
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["mine"]

    rename = os.rename

    def interrupted(old, new):  # at the worst moment: the old is aside, the new not yet in place
        if str(old).endswith(".partial"):
            raise stop
        rename(old, new)

    monkeypatch.setattr("os.rename", interrupted)
    with pytest.raises(stop), appearing(tmp_path / "out", 1, overwrite=True):
        pass
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["mine"]
