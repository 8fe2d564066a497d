"""Saves that are cancelled, refused or killed, or meet a full disk or a changing source."""

import os
import re
import shutil
import time

import pytest

from surgery import Base, BaseError, Cancelled, Plan, Refused, SaveError
from surgery.io.copy import Mover


def test_a_cancelled_save_leaves_nothing(tiny_folder, tmp_path):
    base = Base.open(str(tiny_folder("llama")))
    reports = []

    def stop(what, done, total):
        reports.append((done, total))
        if done > total / 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        base.save(Plan.whole(6), tmp_path / "out", progress=stop)
    assert reports[0][0] == 0 and reports[0][1] == base.preview(Plan.whole(6)).bytes
    assert not list(tmp_path.iterdir())


def test_a_refused_plan_writes_nothing(tiny_folder, tmp_path):
    base = Base.open(str(tiny_folder("llama")))
    with pytest.raises(Refused):
        base.save(Plan.parse("0:6@average", 6), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_before_the_first_byte(tiny_folder, tmp_path, monkeypatch):
    base = Base.open(str(tiny_folder("llama")))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(SaveError, match="no room"):
        base.save(Plan.whole(6), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(tiny_folder, tmp_path, monkeypatch):
    base = Base.open(str(tiny_folder("llama")))

    def full(*job):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("surgery.checkpoint.writer.Mover", lambda: Mover((full, full)))
    with pytest.raises(SaveError, match="is full"):
        base.save(Plan.whole(6), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_source_that_shrinks_while_it_is_read(tiny_folder, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder("llama"), folder)
    base = Base.open(str(folder))
    os.truncate(folder / "model.safetensors", 5000)
    with pytest.raises(BaseError, match="changed since they were opened"):
        base.save(Plan.whole(6), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("what", ["shrinks", "changes", "vanishes"])
def test_a_source_that_does_so_in_mid_save(tiny_folder, tmp_path, what, dtype):
    """Whatever was written by then is removed, and the message names the file."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder("llama"), folder)
    weights = folder / "model.safetensors"
    raw = weights.read_bytes()
    base = Base.open(str(folder))

    def meddle(message, done, total):
        if not 0 < done < total / 2:
            return
        match what:
            case "shrinks":
                os.truncate(weights, 50_000)
            case "changes":
                weights.write_bytes(raw[:-4] + b"abcd")
            case "vanishes":
                weights.unlink(missing_ok=True)

    with pytest.raises(BaseError, match=re.escape(str(folder))):
        base.save(Plan.whole(6), tmp_path / "out", dtype=dtype, progress=meddle)
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


def test_a_killed_save_leaves_nothing_that_looks_finished(warm, tiny_folder, tmp_path):
    """kill -9 in the middle; the next run sweeps up."""
    out = tmp_path / "out"
    code = (
        "import sys, time; from surgery import Base, Plan\n"
        "def slow(what, done, total): print('at', done, flush=True); time.sleep(0.2)\n"
        f"Base.open({str(tiny_folder('llama'))!r}).save(Plan.whole(6), {str(out)!r}, progress=slow)"
    )
    process = warm.start("-c", code)
    for line in process.stdout:
        if line.startswith(b"at") and line != b"at 0\n":
            break
    process.kill()
    process.wait()
    assert not out.exists() and len(list(tmp_path.iterdir())) == 1
    time.sleep(0.1)
    base = Base.open(str(tiny_folder("llama")))
    base.save(Plan.whole(6), out)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
