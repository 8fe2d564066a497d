"""What the base writes: how much, how fast, and that its tokens are drawn as they are likely."""

import pytest
import tiny
import torch
from zoo import build

from surgery import Base, Plan, SurgeryError
from surgery.compute import choice
from surgery.healing import own_text, text
from surgery.healing.time_budget import Writing


@pytest.mark.parametrize(("rows", "dtype"), [(4, torch.bfloat16), (20, torch.float32)])
def test_many_rows_are_written_in_the_dtype_that_is_fast(tmp_path, monkeypatch, rows, dtype):
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    monkeypatch.setenv(choice.VARIABLE, "float32")
    seen = set()
    base.model.register_forward_hook(lambda module, given, output: seen.add(output.logits.dtype))
    assert own_text.sampled(base, rows, 12, seed=1).shape == (rows, 12)
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
    now, asked, real = [0.0], [], own_text._continued

    def continued(base, first, window, random, written):
        result = real(base, first, window, random, written)
        asked.append(len(first))
        now[0] += result.numel() * 0.002
        return result

    reports = []
    monkeypatch.setattr(own_text, "_continued", continued)
    monkeypatch.setattr(text, "_MOST_SAMPLED", 200 * 16)
    monkeypatch.setattr(own_text.time, "monotonic", lambda: now[0])
    timed = settings(sampled_tokens=0, steps=None, minutes=1, default_text="own")
    own = torch.arange(16 * have, dtype=torch.int32).view(-1, 16)
    writing = Writing(seconds, 1 / 0.032, have=have)
    result = text.read(base, timed, lambda *update: reports.append(update), writing, own)
    assert asked == rows and result.shape == (have + sum(rows), 16)
    assert torch.equal(result[:have], own)
    assert len(result.unique(dim=0)) == len(result)
    assert all(done <= total for what, done, total in reports if what == own_text._WRITING)
    assert not rows or any(what == own_text._WRITING for what, *_ in reports)


def test_a_large_cache_is_written_in_fewer_rows(base, settings, monkeypatch):
    each = base.preview(Plan.whole(base.depth)).kv_bytes_per_token
    assert each > 0 and own_text.rows_at_once(base, 16) == 96
    assert own_text.writing_bytes(base, settings(sampled_tokens=0)) == 96 * 16 * each
    monkeypatch.setattr(own_text, "_CACHE", 5 * 16 * each)
    assert own_text.rows_at_once(base, 16) == 5
    assert own_text.writing_bytes(base, settings(sampled_tokens=0)) == 5 * 16 * each
    assert own_text.writing_bytes(base, settings(text="a file")) == 0
    result = own_text.sampled(base, 12, 16, 0)
    assert result.shape == (12, 16) and len(result.unique(dim=0)) == 12
    monkeypatch.setattr(own_text, "_cached", lambda base: 0)
    assert own_text.rows_at_once(base, 16) == 48


def test_the_base_writes_the_same_for_a_seed(base):
    result = own_text.sampled(base, 3, 12, seed=1)
    assert result.shape == (3, 12) and result.dtype == torch.int32
    assert torch.equal(result, own_text.sampled(base, 3, 12, seed=1))
    assert not torch.equal(result, own_text.sampled(base, 3, 12, seed=2))


def test_the_likeliest_tokens_come_first(base):
    """Tokens 1 to 4 of a window are what greedy decoding gives after its first."""
    (row,) = own_text.sampled(base, 1, 8, seed=3)
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
        own_text.sampled(Base.open(str(tmp_path)), 1, 8, seed=0)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    weights = torch.zeros(600)
    weights[torch.tensor([0, 255, 256, 599])] = torch.tensor([1.0, 2.0, 4.0, 1.0])
    drawn = own_text._drawn(weights.expand(4000, -1), torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, 1)
    shares = torch.bincount(drawn.flatten(), minlength=600) / 4000
    assert shares.nonzero().flatten().tolist() == [0, 255, 256, 599]
    assert shares[[0, 255, 256, 599]].tolist() == pytest.approx(
        [1 / 8, 1 / 4, 1 / 2, 1 / 8], abs=0.03
    )


def test_a_point_near_one_falls_on_the_last_likely_token():
    weights = torch.tensor([[0.0, 3.0, 1e-3, 0.0, 0.0]])
    almost = torch.tensor([[1.0]], dtype=torch.float64)  # as rounding may leave it
    assert own_text._at(weights, almost).item() == 2
    assert own_text._at(weights, torch.zeros(1, 1, dtype=torch.float64)).item() == 1
