"""What is read: windows from a file, a data set, or the base."""

import json

import datasets
import pytest
import torch
from hub_server import Hub

from surgery import SurgeryError
from surgery.healing import own_text, text
from surgery.healing.time_budget import Writing
from surgery.texts import python_library


def test_a_file_is_cut_into_windows(base, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(33 + i % 90) for i in range(1000)), encoding="utf-8")
    ids = base.tokenizer(path.read_text())["input_ids"]
    result = text.of_file(base, str(path), 64)
    assert result.shape == (len(ids) // 64, 64)
    assert result.flatten().tolist() == ids[: result.numel()]
    assert text.of_file(base, str(path), 64, most=100).shape == (2, 64)


def test_files_that_are_none(base, tmp_path):
    (tmp_path / "short").write_text("too short")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00" * 100)
    (tmp_path / "empty").write_text("")
    (tmp_path / "numbers.jsonl").write_text('{"text": "a"}\n7\n')
    (tmp_path / "columns.jsonl").write_text('{"a": "x", "b": "y"}\n')
    (tmp_path / "bytes.jsonl").write_bytes(b'{"text": "\xff"}')
    (tmp_path / "half.jsonl").write_text('{"text": "\\ud800"}\n')
    for name, message in (
        ("none", "can't be read"),
        ("short", "shorter than one"),
        ("bytes", "UTF-8"),
        ("empty", "is empty"),
        ("numbers.jsonl", "Line 2 of numbers.jsonl is not a JSON object"),
        (
            "columns.jsonl",
            "columns.jsonl has no column with text that can be recognised: its columns are a, b",
        ),
        ("bytes.jsonl", "UTF-8"),
        ("half.jsonl", "aren't valid UTF-8"),
        ("none.jsonl", "can't be read"),
    ):
        with pytest.raises(SurgeryError, match=message):
            text.of_file(base, str(tmp_path / name), 64)


def test_a_data_set_is_streamed_row_by_row(base, tmp_path, monkeypatch):
    """A folder stands for one on the Hub; the same library reads both. It would read local folders,
    and files by the name of a format, as well: these are no data sets on the Hub."""
    load = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda path, *part, **how: load(places[path], *part, **how)
    )
    places = {"org/name": str(tmp_path), "org/none": str(tmp_path / "none")}
    (tmp_path / "train.jsonl").write_text(
        '{"text": "first row", "n": 1}\n{"text": "next", "n": 2}\n'
    )
    result = text.of_data_set(base, "org/name", 5, None)
    end = base.tokenizer.eos_token_id
    ids = [t for row in ("first row", "next") for t in [*base.tokenizer(row)["input_ids"], end]]
    assert result.flatten().tolist() == ids[: len(ids) // 5 * 5]
    with pytest.raises(SurgeryError, match="can't be read"):
        text.of_data_set(base, "org/none", 5, None)
    monkeypatch.setattr(datasets, "load_dataset", None)  # fails if it is called
    for name in (str(tmp_path), "json", "../name", "org/name/more"):
        with pytest.raises(SurgeryError, match="not a data set on the Hub: write it as org/name"):
            text.of_data_set(base, name, 5, None)


def test_rows_of_a_file_are_read_as_those_of_a_data_set(base, tmp_path):
    rows = ("first row", "", "next")
    path = tmp_path / "rows.JSONL"
    path.write_text("\n".join(json.dumps({"text": row, "n": 1}) for row in rows) + "\n\n")
    result = text.of_file(base, str(path), 5)
    end = base.tokenizer.eos_token_id
    ids = [t for row in rows if row for t in [*base.tokenizer(row)["input_ids"], end]]
    assert result.flatten().tolist() == ids[: len(ids) // 5 * 5]


def test_settings_say_what_is_read(base, settings, held_out, monkeypatch):
    """And progress says how much was."""
    reports = []
    result = text.read(
        base, settings(text=held_out, steps=1), lambda *update: reports.append(update)
    )
    assert torch.equal(result, text.of_file(base, held_out, 16, 64))
    assert reports[0] == ("Reading the text", 0, 64) and reports[-1][1] >= 64
    assert text.read(base, settings(sampled_tokens=100)).shape == (12, 16)
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **b: asked.append((a, b)) or [])
    with pytest.raises(SurgeryError, match="is empty"):
        text.read(base, settings(data="org/name:subset"))
    assert asked == [(("org/name", "subset"), {"split": "train", "streaming": True})]


@pytest.mark.parametrize("kind", ["mixed", "own", "python"])
def test_as_much_is_prepared_as_is_read_once(base, settings, monkeypatch, kind):
    given = dict(sampled_tokens=0, default_text=kind)
    assert text.read(base, settings(steps=5, **given)).shape == (20, 16)
    monkeypatch.setattr(text, "_MOST_SAMPLED", 64)
    assert text.read(base, settings(steps=500, **given)).shape == (4, 16)


def test_half_of_the_default_text_is_python_s_library(base, settings, monkeypatch):
    given = dict(sampled_tokens=160, seed=3)
    result = text.read(base, settings(**given))
    own, library = own_text.sampled(base, 10, 16, 3), text.of_library(base, 10, 16)
    assert torch.equal(result[0::2], own) and torch.equal(result[1::2], library)
    assert torch.equal(text.read(base, settings(**given, default_text="own")), own)
    read = {
        kind: text.described(base, settings(default_text=kind))
        for kind in ("mixed", "own", "python")
    }
    assert read == {
        "mixed": "text sampled from the base and Python's library",
        "own": "text sampled from the base",
        "python": "Python's library",
    }
    monkeypatch.setattr(python_library, "files", list)  # a Python without its sources
    assert torch.equal(text.read(base, settings(**given)), own)
    assert text.described(base, settings()) == read["own"]
    with pytest.raises(SurgeryError, match="without the source of its library"):
        text.read(base, settings(default_text="python"))


def test_windows_of_the_library_are_of_many_modules(base):
    short, long = text.of_library(base, 30, 16), text.of_library(base, 2, 600)
    assert short.shape == (30, 16) and len(short.unique(dim=0)) == 30
    assert torch.equal(short, text.of_library(base, 30, 16))
    assert long.shape == (2, 600)


def test_there_is_never_more_than_the_limit(base, settings, monkeypatch):
    monkeypatch.setattr(text, "_MOST_SAMPLED", 10 * 16)
    timed = settings(sampled_tokens=0, steps=None, minutes=1)
    own = torch.arange(16 * 40, dtype=torch.int32).view(-1, 16) % 90
    result = text.read(base, timed, writing=Writing(1e6, 1, have=40), own=own)
    assert result.shape == (10, 16) and torch.equal(result[::2], own[:5])


def test_text_of_a_repair_is_cut_to_the_windows_of_a_run(base, settings):
    timed = settings(sampled_tokens=0, steps=None, minutes=1)
    written = torch.arange(40).view(5, 8)
    assert torch.equal(text.own_windows(base, timed, written), torch.arange(32).view(2, 16).int())
    for other in (timed.replace(default_text="python"), timed.replace(text="a file"), settings()):
        assert text.own_windows(base, other, written).shape == (0, 16)
    assert text.own_windows(base, timed, None).shape == (0, 16)
    assert text.kinds(base, timed) == 2
    assert text.kinds(base, timed.replace(default_text="own")) == 1


OTHERS_TOKEN = """
import sys
from surgery import Base, SurgeryError
from surgery.healing import text
try:
    text.of_data_set(Base.open(sys.argv[1]), "org/name", 5, None)
except SurgeryError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("hidden", [True, False])
def test_a_data_set_is_asked_for_in_nobody_s_name_where_that_is_forbidden(
    warm, tiny_folder, tmp_path, hidden
):
    """A public page sets that variable before anything is imported; a machine of one's own
    doesn't, and there the token goes along."""
    hub = Hub()
    try:
        result = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_owner", "HF_HOME": str(tmp_path)}
        result |= {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"} if hidden else {}
        done = warm.run("-c", OTHERS_TOKEN, tiny_folder("llama"), env=result)
    finally:
        hub.close()
    assert done.returncode == 1 and "The data set org/name can't be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.requests and ("Bearer hf_owner" in hub.tokens) is not hidden
