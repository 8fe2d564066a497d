"""What is read: windows from a file, a data set, or the base."""

import json

import datasets
import pytest
import tiny
import torch
from hub_server import Hub
from zoo import build

from surgery import Base, Plan, SurgeryError
from surgery.compute import choice
from surgery.healing import text
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


def test_a_data_set_is_streamed_row_by_row(base, tmp_path):
    """A folder stands for one on the Hub; the same library reads both."""
    (tmp_path / "train.jsonl").write_text(
        '{"text": "first row", "n": 1}\n{"text": "next", "n": 2}\n'
    )
    result = text.of_data_set(base, str(tmp_path), 5, None)
    end = base.tokenizer.eos_token_id
    ids = [t for row in ("first row", "next") for t in [*base.tokenizer(row)["input_ids"], end]]
    assert result.flatten().tolist() == ids[: len(ids) // 5 * 5]
    with pytest.raises(SurgeryError, match="can't be read"):
        text.of_data_set(base, str(tmp_path / "none"), 5, None)


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
    own, library = text.sampled(base, 10, 16, 3), text.of_library(base, 10, 16)
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


@pytest.mark.parametrize(("rows", "dtype"), [(4, torch.bfloat16), (20, torch.float32)])
def test_many_rows_are_written_in_the_dtype_that_is_fast(tmp_path, monkeypatch, rows, dtype):
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    monkeypatch.setenv(choice.VARIABLE, "float32")
    seen = set()
    base.model.register_forward_hook(lambda module, given, output: seen.add(output.logits.dtype))
    assert text.sampled(base, rows, 12, seed=1).shape == (rows, 12)
    assert seen == {dtype}


@pytest.mark.parametrize(
    ("seconds", "have", "rows"),
    [
        (0.0, 0, [8]),
        (2.6, 0, [8, 32]),
        (12.1, 0, [8, 32, 96, 53]),
        (99, 0, [8, 32, 96, 64]),
        (6.05, 60, [8, 32, 24]),
        (1.0, 60, []),
        (0.0, 3, [5]),
    ],
)
def test_the_rest_of_the_time_says_how_much_the_base_writes(
    base, settings, monkeypatch, seconds, have, rows
):
    """By a clock of its own that makes a token take 2 ms, so a window of 16 takes 32, as long as a
    step takes to read it."""
    now, asked, real = [0.0], [], text._continued

    def continued(base, first, window, random, written):
        result = real(base, first, window, random, written)
        asked.append(len(first))
        now[0] += result.numel() * 0.002
        return result

    reports = []
    monkeypatch.setattr(text, "_continued", continued)
    monkeypatch.setattr(text, "_MOST_SAMPLED", 200 * 16)
    monkeypatch.setattr(text.time, "monotonic", lambda: now[0])
    timed = settings(sampled_tokens=0, steps=None, minutes=1, default_text="own")
    own = torch.arange(16 * have, dtype=torch.int32).view(-1, 16)
    writing = Writing(seconds, 1 / 0.032, have=have)
    result = text.read(base, timed, lambda *update: reports.append(update), writing, own)
    assert asked == rows and result.shape == (have + sum(rows), 16)
    assert torch.equal(result[:have], own)
    assert len(result.unique(dim=0)) == len(result)
    assert all(done <= total for what, done, total in reports if what == text._WRITING)
    assert not rows or any(what == text._WRITING for what, *_ in reports)


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


def test_a_large_cache_is_written_in_fewer_rows(base, settings, monkeypatch):
    each = base.preview(Plan.whole(base.depth)).kv_bytes_per_token
    assert each > 0 and text.rows_at_once(base, 16) == 96
    assert text.writing_bytes(base, settings(sampled_tokens=0)) == 96 * 16 * each
    monkeypatch.setattr(text, "_CACHE", 5 * 16 * each)
    assert text.rows_at_once(base, 16) == 5
    assert text.writing_bytes(base, settings(sampled_tokens=0)) == 5 * 16 * each
    assert text.writing_bytes(base, settings(text="a file")) == 0
    result = text.sampled(base, 12, 16, 0)
    assert result.shape == (12, 16) and len(result.unique(dim=0)) == 12
    monkeypatch.setattr(text, "_cached", lambda base: 0)
    assert text.rows_at_once(base, 16) == 48


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


def test_the_base_writes_the_same_for_a_seed(base):
    result = text.sampled(base, 3, 12, seed=1)
    assert result.shape == (3, 12) and result.dtype == torch.int32
    assert torch.equal(result, text.sampled(base, 3, 12, seed=1))
    assert not torch.equal(result, text.sampled(base, 3, 12, seed=2))
    with pytest.raises(SurgeryError, match="longer than the context"):
        text.sampled(base, 1, 300, seed=0)


def test_the_likeliest_tokens_come_first(base):
    """Tokens 1 to 4 of a window are what greedy decoding gives after its first."""
    (row,) = text.sampled(base, 1, 8, seed=3)
    ids = row[:1].long()[None]
    for _ in range(4):
        ids = torch.cat([ids, base.model(ids).logits[:, -1:].argmax(-1)], 1)
    assert row[:5].tolist() == ids[0].tolist()


def test_a_larger_tokenizer_is_no_matter_as_long_as_its_tokens_do_not_occur(tmp_path):
    tiny.model("llama", vocab_size=93).save_pretrained(tmp_path / "few")
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<end>"})  # token 98, which the model lacks
    tokenizer.save_pretrained(tmp_path / "few")
    base = Base.open(str(tmp_path / "few"))
    rows = "".join(f'{{"text": "row number {i}"}}\n' for i in range(9))
    (tmp_path / "rows.jsonl").write_text(rows)
    assert int(text.of_file(base, str(tmp_path / "rows.jsonl"), 16).max()) < 93
    (tmp_path / "rows.jsonl").write_text(rows.replace("row", "zzz"))
    with pytest.raises(SurgeryError, match="“z” is token 93 of the tokenizer"):
        text.of_file(base, str(tmp_path / "rows.jsonl"), 16)


def test_a_base_that_returns_nothing_for_one_token(tmp_path):
    """CPM-Ant takes the first 32 tokens for a prompt of its own."""
    build.model("cpmant").save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SurgeryError, match="can't write text: it returns no logits"):
        text.sampled(Base.open(str(tmp_path)), 1, 8, seed=0)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    weights = torch.zeros(600)
    weights[torch.tensor([0, 255, 256, 599])] = torch.tensor([1.0, 2.0, 4.0, 1.0])
    drawn = text._drawn(weights.expand(4000, -1), torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, 1)
    shares = torch.bincount(drawn.flatten(), minlength=600) / 4000
    assert shares.nonzero().flatten().tolist() == [0, 255, 256, 599]
    assert shares[[0, 255, 256, 599]].tolist() == pytest.approx(
        [1 / 8, 1 / 4, 1 / 2, 1 / 8], abs=0.03
    )


def test_a_point_near_one_falls_on_the_last_likely_token():
    weights = torch.tensor([[0.0, 3.0, 1e-3, 0.0, 0.0]])
    almost = torch.tensor([[1.0]], dtype=torch.float64)  # as rounding may leave it
    assert text._at(weights, almost).item() == 2
    assert text._at(weights, torch.zeros(1, 1, dtype=torch.float64)).item() == 1
