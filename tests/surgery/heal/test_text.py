"""What is read: windows from a file, a data set, or the base."""

import pytest
import torch

from surgery import SurgeryError
from surgery.heal import text


def test_a_file_is_cut_into_windows(base, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(33 + i % 90) for i in range(1000)), encoding="utf-8")
    ids = base.tokenizer(path.read_text())["input_ids"]
    found = text.of_file(base, str(path), 64)
    assert found.shape == (len(ids) // 64, 64)
    assert found.flatten().tolist() == ids[: found.numel()]
    assert text.of_file(base, str(path), 64, most=100).shape == (2, 64)


def test_files_that_are_none(base, tmp_path):
    (tmp_path / "short").write_text("too short")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00" * 100)
    for name, said in (
        ("none", "can't be read"),
        ("short", "shorter than one"),
        ("bytes", "UTF-8"),
    ):
        with pytest.raises(SurgeryError, match=said):
            text.of_file(base, str(tmp_path / name), 64)


def test_a_data_set_is_streamed_row_by_row(base, tmp_path):
    """A folder stands for one on the Hub; the same library reads both."""
    (tmp_path / "train.jsonl").write_text(
        '{"text": "first row", "n": 1}\n{"text": "next", "n": 2}\n'
    )
    found = text.of_data_set(base, str(tmp_path), 5, None)
    end = base.tokenizer.eos_token_id
    ids = [t for row in ("first row", "next") for t in [*base.tokenizer(row)["input_ids"], end]]
    assert found.flatten().tolist() == ids[: len(ids) // 5 * 5]
    with pytest.raises(SurgeryError, match="can't be read"):
        text.of_data_set(base, str(tmp_path / "none"), 5, None)


def test_the_base_writes_the_same_for_a_seed(base):
    found = text.sampled(base, 3, 12, seed=1)
    assert found.shape == (3, 12) and found.dtype == torch.int32
    assert torch.equal(found, text.sampled(base, 3, 12, seed=1))
    assert not torch.equal(found, text.sampled(base, 3, 12, seed=2))
    with pytest.raises(SurgeryError, match="longer than the context"):
        text.sampled(base, 1, 300, seed=0)


def test_the_likeliest_tokens_come_first(base):
    """Tokens 1 to 4 of a window are what greedy decoding gives after its first."""
    (row,) = text.sampled(base, 1, 8, seed=3)
    ids = row[:1].long()[None]
    for _ in range(4):
        ids = torch.cat([ids, base.model(ids).logits[:, -1:].argmax(-1)], 1)
    assert row[:5].tolist() == ids[0].tolist()
