"""Atomic outputs: hostile folders, concurrent writers, killed processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from surgery import Base, Cancelled, Plan, SaveError
from surgery.io.atomic import atomic_folder, exchange, remove_folder, restored, sweep

WHOLE = Plan.whole(6)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def base(tiny_folder):
    return Base.open(str(tiny_folder("llama")))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
    with pytest.raises(SaveError, match=r"can't be used as an output path|could not be written"):
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


def test_files_may_not_grow_any_more(warm, tiny_folder, tmp_path):
    """A real refusal by the system in mid-file, as on a disk that is full."""
    code = (
        "import resource, sys; from surgery import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: Base.open(sys.argv[1]).save(Plan.whole(6), sys.argv[2])\n"
        "except SaveError as error: print(error)"
    )
    message = warm.run("-c", code, tiny_folder("llama"), tmp_path / "out").stdout
    assert message == f"{tmp_path}/out could not be written: File too large\n"
    assert not names(tmp_path)


def test_two_at_once_to_one_place(base, tmp_path):
    """The first to finish has it; the other is told, and nothing is mixed."""
    both = threading.Barrier(2, timeout=60)
    ends = []

    def save(text):
        met = False

        def together(what, done, total):
            nonlocal met
            if not met:  # later, one save may wait for the other and report more often
                met = True
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
    with pytest.raises(SaveError, match="exists already"), atomic_folder(out, 1):
        out.mkdir()
        (out / "theirs").touch()
    assert names(tmp_path) == ["out"] and names(out) == ["theirs"]


def left(folder, *names, name="out"):
    """An unlocked holder with these folders in it, each with a file of its name."""
    holder = folder / f".{name}.{os.getpid():08x}.partial"
    for each in names:
        (holder / each).mkdir(parents=True)
        (holder / each / each).touch()
    (holder / "lock").touch()
    return holder


def test_only_what_nobody_holds_is_swept(tmp_path):
    """Neither live holders, nor other folders with such names."""
    strange = tmp_path / ".out.00000000.partial"
    strange.mkdir()
    (strange / "mine").touch()
    for name in (".out.notes", "outer", ".out.0000000g.partial"):
        (tmp_path / name).mkdir()
    before = names(tmp_path)
    with atomic_folder(tmp_path / "out", 1) as theirs:
        living = names(tmp_path)
        for name in ("dead", "dead too"):
            left(tmp_path, "new", name=name)
        with atomic_folder(tmp_path / "out2", 1) as partial:
            (partial / "new").touch()
        assert names(tmp_path) == sorted([*living, "out2"])
        (theirs / "mine").touch()
    assert names(tmp_path) == sorted([*before, "out", "out2"])
    assert names(tmp_path / "out") == ["mine"] and names(tmp_path / "out2") == ["new"]


def test_what_was_put_aside_comes_back(tmp_path):
    """Killed between the two renames of a replacement: the old model is still there."""
    left(tmp_path, "old", "new")
    with pytest.raises(SaveError, match="exists already"), atomic_folder(tmp_path / "out", 1):
        raise AssertionError("begun although something is there")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["old"]


def test_what_was_put_aside_pushes_nobody_away(tmp_path):
    """Another process has created a folder of this name: both are kept."""
    holder = left(tmp_path, "old", "new")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()
    for _ in range(2):
        sweep(tmp_path)
    assert names(tmp_path / "out") == ["theirs"] and names(holder / "old") == ["old"]


def test_a_folder_is_removed_in_one_step(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("x")
    remove_folder(folder)
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        remove_folder(folder)
    assert names(tmp_path) == []


def test_after_the_second_rename_the_old_one_goes(tmp_path):
    left(tmp_path, "old")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()
    sweep(tmp_path)
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["theirs"]


def test_opening_puts_it_back(base, tiny_folder, tmp_path, monkeypatch):
    """Even if the name could be a Hub id."""
    monkeypatch.chdir(tmp_path)
    for spec in (str(tmp_path / "out"), "out"):
        holder = left(tmp_path, "new")
        shutil.copytree(tiny_folder("llama"), holder / "old")
        assert Base.open(spec).depth == 6
        assert names(tmp_path) == ["out"]
        shutil.rmtree("out")


KILLED = """
import os, signal, sys
from pathlib import Path
from surgery.io import atomic
stage, out = sys.argv[1], Path(sys.argv[2])
here = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
rename, exchange = os.rename, atomic.exchange
if "fallback" in stage:
    atomic.exchange = lambda *_: False
if stage == "fallback, between the renames":
    def once(one, other):
        here() if one.name == "new" and (one.parent / "old").exists() else rename(one, other)
    os.rename = once
if stage == "before the exchange":
    atomic.exchange = here
if stage == "after the exchange":
    atomic.exchange = lambda one, other: exchange(one, other) and here()
if stage.endswith("clearing up"):
    atomic._clear = here
with atomic.atomic_folder(out, 1, overwrite=True) as partial:
    (partial / "config.json").write_text('{"model_type": "new"}')
    if stage == "writing":
        here()
"""
STAGES = {
    "writing": "old",
    "before the exchange": "old",
    "after the exchange": "new",
    "clearing up": "new",
    "fallback, between the renames": "old",
    "fallback, clearing up": "new",
}


@pytest.mark.parametrize("stage", STAGES)
def test_kill_9(tmp_path, stage):
    """At every stage of a replacement: the old or the new output is complete under its name.
    The next save removes the rest, even if a process with the same id lives (this one)."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text('{"model_type": "old"}')
    command = [sys.executable, "-c", KILLED, stage, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (holder,) = (path for path in tmp_path.iterdir() if path != out)
    assert set(names(holder)) <= {"lock", "new", "old"}
    assert restored(out)
    assert json.loads((out / "config.json").read_text())["model_type"] == STAGES[stage]
    with pytest.raises(SaveError, match="exists already"), atomic_folder(out, 1):
        pass
    assert names(tmp_path) == ["out"] and names(out) == ["config.json"]


@pytest.mark.parametrize("exchanging", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, Cancelled, MemoryError])
def test_whatever_stops_it_nothing_is_left_and_the_old_stays(
    tmp_path, monkeypatch, stop, exchanging
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(stop), atomic_folder(out, 1, overwrite=True) as partial:
        (partial / "half").touch()
        raise stop
    assert names(tmp_path) == ["out"] and names(out) == ["config.json"]

    def interrupted(*_):
        raise stop

    if exchanging:
        monkeypatch.setattr("surgery.io.atomic.exchange", interrupted)
    else:
        rename = os.rename

        def once(old, new):  # at the worst moment: old moved aside, new not in place
            if (old.parent / "old").exists() and old.name == "new":
                raise stop
            rename(old, new)

        monkeypatch.setattr("surgery.io.atomic.exchange", lambda *_: False)
        monkeypatch.setattr("os.rename", once)
    with pytest.raises(stop), atomic_folder(out, 1, overwrite=True) as partial:
        (partial / "half").touch()
    assert names(tmp_path) == ["out"] and names(out) == ["config.json"]


@pytest.mark.parametrize("exchanging", [True, False], ids=["exchange", "two renames"])
def test_a_replacement(tmp_path, monkeypatch, exchanging):
    if not exchanging:
        monkeypatch.setattr("surgery.io.atomic.exchange", lambda *_: False)
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text('{"model_type": "llama"}')
    with atomic_folder(out, 1, overwrite=True) as partial:
        (partial / "new").touch()
    assert names(tmp_path) == ["out"] and names(out) == ["new"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such call")
def test_two_folders_change_places_in_one_step(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "one", tmp_path / "other")
    assert names(tmp_path / "one") == ["other"] and names(tmp_path / "other") == ["one"]
    assert not exchange(tmp_path / "one", tmp_path / "nowhere")
