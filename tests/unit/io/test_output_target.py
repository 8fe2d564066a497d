"""Overwriting: never a base, and only outputs of the same kind."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from surgery import Base, Plan, SaveError, stack
from surgery.healing import HealingRun
from surgery.io.atomic import atomic_folder
from surgery.io.output_target import ADAPTER, MODEL, STATE, check_target

WHOLE = Plan.whole(6)


@pytest.fixture
def base(tiny_folder):
    return Base.open(str(tiny_folder("llama")))


@pytest.fixture
def home(tiny_folder, tmp_path):
    """A copy of the tiny base that may be destroyed."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "models" / "base"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def linked(home, folder, link=os.symlink):
    """A base at `folder` whose files are links to those in `home`."""
    folder.mkdir()
    for path in home.iterdir():
        link(path, folder / path.name)
    return folder


def test_the_base_is_never_overwritten(home, tmp_path):
    (home.parent / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(home)
    before = contents(home)
    for spec in (str(home), f"config:{home}/config.json", f"config:{home},vocab_size=64"):
        for out in (home, home.parent, tmp_path / "link", home / ".." / "base"):
            with pytest.raises(SaveError, match="base itself is stored in"):
                Base.open(spec).save(WHOLE, out, overwrite=True)
    assert contents(home) == before


def test_nor_where_its_links_lead(home, tmp_path):
    """As in the Hub's cache: the opened folder contains only links."""
    base = Base.open(str(linked(home, tmp_path / "links")))
    before = contents(home)
    with pytest.raises(SaveError, match=r"base itself is stored in .*base \("):
        base.save(WHOLE, home, overwrite=True)
    assert contents(home) == before
    base.save(WHOLE, tmp_path / "links" / "out")  # a new folder replaces nothing


def test_nor_what_a_link_leads_through(home, tmp_path):
    """Links to links: the folder in the middle is needed too."""
    middle = linked(home, tmp_path / "middle")
    with pytest.raises(SaveError, match="base itself is stored in"):
        Base.open(str(linked(middle, tmp_path / "links"))).save(WHOLE, middle, overwrite=True)


def test_one_companion_is_enough(home, tmp_path):
    """Only the tokenizer is in the output folder."""
    out = tmp_path / "out"
    Base.open(str(home)).save(WHOLE, out)
    (home / "tokenizer.json").unlink()
    (home / "tokenizer.json").symlink_to(out / "tokenizer.json")
    with pytest.raises(SaveError, match=r"\(tokenizer.json is read from there\)"):
        Base.open(str(home)).save(WHOLE, out, overwrite=True)


def test_hard_links_keep_what_they_hold(home, tmp_path):
    """Replacing one hard link of a file leaves the other intact."""
    base = Base.open(str(linked(home, tmp_path / "links", os.link)))
    before = contents(tmp_path / "links")
    base.save(Plan.parse("0:3", 6), home, overwrite=True)
    assert contents(tmp_path / "links") == before
    assert Base.open(str(home)).depth == 3


def test_the_second_base_of_a_stack(base, home):
    plan = Plan.parse("0:2, b/4:6", 6, bases={"b": 6})
    both, flat = stack(base, {"b": Base.open(str(home))}, plan)
    with pytest.raises(SaveError, match="base itself is stored in"):
        both.save(flat, home, overwrite=True)


def test_a_gguf_file(home, tmp_path):
    """Only the file itself: its folder may hold unrelated files."""
    from surgery.sources import Source

    (home / "small.gguf").write_bytes(b"GGUF")
    source = Source("gguf", "small", None, "gguf", home=home, files=(home / "small.gguf",))
    assert list(Base(source).local_files()) == [home / "small.gguf"]
    with pytest.raises(SaveError, match="base itself is stored in"):
        check_target(home, True, MODEL, source.local_files())


def test_a_folder_mounted_twice(warm, home, tmp_path):
    """The same folder under another name, where no link shows it. The process, which is forked,
    gets a view of the file system of its own, as by the program `unshare`."""
    code = """
import ctypes, os, subprocess, sys
from surgery import *
home, out, *places = sys.argv[1:]
user, group = os.getuid(), os.getgid()
own, of_users = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
if ctypes.CDLL(None, use_errno=True).unshare(own if user == 0 else own | of_users):
    sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
if user:  # nobody but root may mount, so be root there
    maps = dict(setgroups="deny", uid_map=f"0 {user} 1", gid_map=f"0 {group} 1")
    for name, text in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "--bind", *places], check=True)
try:
    Base.open(home).save(Plan.whole(6), out, overwrite=True)
except SaveError as error:
    print(error)
"""
    (tmp_path / "mounted").mkdir()
    own = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*own, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount")
    out = tmp_path / "mounted" / "base"
    done = warm.run("-c", code, home, out, home.parent, tmp_path / "mounted")
    assert "base itself is stored in" in done.stdout, done.stderr
    assert (home / "model.safetensors").is_file()


def test_only_a_model_s_folder_is_ever_replaced(base, tmp_path):
    """`--overwrite` with the wrong name must not cost anyone a home folder."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(SaveError, match="holds no saved model, so it is not replaced"):
        base.save(WHOLE, tmp_path / "thesis", overwrite=True)
    (tmp_path / "empty").mkdir()
    base.save(WHOLE, tmp_path / "empty")
    assert names(tmp_path) == ["empty", "thesis"]


@pytest.mark.parametrize(
    "mine",
    [
        "chapter.tex",
        "notes.txt",
        ".git/HEAD",
        "out2/config.json",
        "pytorch_model.bin",
        "optimizer.pt",
        "model.gguf",
        "my-lora.safetensors",
        "tokenizer/mine",
    ],
)
@pytest.mark.parametrize("kind", [MODEL, ADAPTER, STATE], ids=lambda kind: kind.name)
def test_no_file_of_somebody_else_is(tmp_path, kind, mine):
    """A model's folder may be somebody's working copy."""
    out = tmp_path / "out"
    (out / mine).parent.mkdir(parents=True)
    (out / kind.mark).write_text(f'{{"{kind.key}": 1}}')
    check_target(out, True, kind)
    (out / mine).write_text("mine")
    with pytest.raises(SaveError, match=f"holds {mine}, which is not part of a saved {kind.name}"):
        check_target(out, True, kind)


@pytest.mark.parametrize("mark", ["", "{", "[]", '"model_type"', "{}", '{"name": "my website"}'])
def test_a_config_of_something_else_marks_no_model(tmp_path, mark):
    (tmp_path / "config.json").write_text(mark)
    with pytest.raises(SaveError, match="holds no saved model"):
        check_target(tmp_path, True)


def test_what_an_earlier_save_carried_may_go(home, tmp_path):
    """Files that lie beside the base's weights are carried along, whatever their names."""
    (home / "a policy.txt").write_text("be kind")
    base, out = Base.open(str(home)), tmp_path / "out"
    base.save(WHOLE, out)
    (out / "a policy.txt").write_text("be kind")
    base.save(Plan.parse("0:3", 6), out, overwrite=True)
    (out / "pytorch_model.bin").write_text("mine")
    (home / "pytorch_model.bin").write_text("the base's")
    with pytest.raises(SaveError, match=r"holds pytorch_model\.bin"):
        base.save(WHOLE, out, overwrite=True)


def test_a_cache_of_models_is_no_place(tmp_path, base, monkeypatch):
    """An output there would pass for the downloaded model."""
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    shutil.copytree(base.source.home, tmp_path / "Another-135M")
    with pytest.raises(SaveError, match="is inside a model cache"):
        base.save(WHOLE, tmp_path / "Another-135M", overwrite=True)
    with pytest.raises(SaveError, match="is inside a model cache"):
        base.save(WHOLE, tmp_path / "Not-There-Yet")
    assert [path.name for path in tmp_path.iterdir()] == ["Another-135M"]


def test_an_adapter_replaces_only_an_adapter(base, tmp_path):
    from surgery.healing import Settings

    (tmp_path / "held-out").write_text("It was a quiet day, and nobody came. " * 4)
    settings = Settings(
        train="lora", steps=1, batch=1, window=16, sampled_tokens=32,
        held_out=str(tmp_path / "held-out"),
    )  # fmt: skip
    run = HealingRun(base, Plan.parse("0:2, 4:6", 6), settings, tmp_path / "run")
    for _ in run:
        pass
    healed = run.result()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    home = base.source.home
    base.save(WHOLE, tmp_path / "model")
    for out, message in (
        (tmp_path / "thesis", "holds no saved adapter"),
        (tmp_path / "model", "holds no saved adapter"),
        (tmp_path / "run", "holds no saved adapter"),
        (home, "base itself is stored in"),
    ):
        before = names(out)
        with pytest.raises(SaveError, match=message):
            healed.save_adapter(out, overwrite=True)
        assert names(out) == before
    for _ in range(2):
        healed.save_adapter(tmp_path / "adapter", overwrite=True)
    for out in (tmp_path / "adapter", tmp_path / "run"):
        with pytest.raises(SaveError, match="holds no saved model"):
            healed.save(out, overwrite=True)


def test_what_changes_meanwhile_is_looked_at_again(tmp_path):
    """A file is added while the new folder is written."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with (
        pytest.raises(SaveError, match=r"holds notes\.txt"),
        atomic_folder(tmp_path, 1, overwrite=True),
    ):
        (tmp_path / "notes.txt").write_text("mine")
    assert names(tmp_path) == ["config.json", "notes.txt"]
