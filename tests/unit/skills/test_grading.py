"""Margins, beside log-probabilities computed one text at a time."""

import math
from dataclasses import replace

import pytest
import tiny
import torch

from surgery import Base, Cancelled, Plan, SurgeryError
from surgery.skills import Item, MarginCache, items_of, margins, profile
from surgery.skills.grading import _tokens


def whole(base):
    return base.operate(Plan.whole(base.depth)).model, Plan.whole(base.depth)


@torch.no_grad()
def log_p(model, ids, start):
    """ln p of the tokens from `start` on, by a pass over this text alone."""
    logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma3", "gpt2"])
def test_margins_are_those_of_single_passes(tiny_folder, family):
    base = Base.open(str(tiny_folder(family)))
    items = [item for key in ("sums_1", "json", "agreement") for item in items_of(key, 8)[:3]]
    model, plan = whole(base)
    for item, margin in zip(items, margins(base, model, plan, items), strict=True):
        start = len(base.tokenizer(item.prompt)["input_ids"])  # it has a token for each character
        texts = [base.tokenizer(item.prompt + text)["input_ids"] for text in item.continuations]
        scores = [log_p(model, ids, start) for ids in texts]
        assert margin == pytest.approx(scores[0] - max(scores[1:]), abs=1e-4)


def test_every_text_starts_with_the_first_token_that_the_tokenizer_adds(tiny_folder, monkeypatch):
    base = Base.open(str(tiny_folder("llama")))
    item = items_of("agreement", 8)[0]
    assert _tokens(base, item).texts[0][0] != base.tokenizer.bos_token_id
    monkeypatch.setattr("surgery.skills.grading.first_token", lambda base: (1,))
    tokens = _tokens(base, item)
    assert {text[0] for text in tokens.texts} == {1} and tokens.start == len(item.prompt) + 1


@pytest.fixture
def merging(tmp_path):
    """A base whose tokenizer merges a and b across the end of a prompt."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<s>", "a", "b", "c", "ab"))}
    inner = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>").save_pretrained(tmp_path)
    tiny.model("llama").save_pretrained(tmp_path)
    return Base.open(str(tmp_path))


def test_a_merge_across_the_prompts_end_is_scored_for_all_continuations(merging):
    a, b, c, ab = 1, 2, 3, 4
    item = Item("ca" * 9, "b", ("c",))
    before = (c, a) * 8 + (c,)
    assert _tokens(merging, item).texts == ((*before, ab), (*before, a, c))
    assert _tokens(merging, item).start == len(before)
    model, plan = whole(merging)
    right, wrong = (log_p(model, [*before, *end], len(before)) for end in ((ab,), (a, c)))
    assert margins(merging, model, plan, [item])[0] == pytest.approx(right - wrong, abs=1e-5)
    assert b not in _tokens(merging, item).texts[0]


def test_a_tokenizer_that_cannot_write_an_item_is_refused(merging):
    with pytest.raises(SurgeryError, match="can't write an item"):
        profile(merging, items=8)


def test_items_longer_than_the_context_are_refused(tmp_path):
    tiny.model("llama", max_position_embeddings=32).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SurgeryError, match="context holds 32"):
        profile(Base.open(str(tmp_path)), items=8)


def test_a_base_without_a_tokenizer_is_refused(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    with pytest.raises(SurgeryError, match="no tokenizer"):
        profile(Base.open(str(tmp_path)), items=8)


def test_it_reports_progress_and_can_be_stopped(tiny_folder):
    base, seen = Base.open(str(tiny_folder("llama"))), []
    base.load()

    def progress(what, done, total):
        seen.append((what, done, total))
        if len(seen) == 9:
            raise Cancelled

    with pytest.raises(Cancelled):
        profile(base, skills=["agreement"], items=8, cache=MarginCache(), progress=progress)
    assert seen[0][:2] == ("Probing skills", 0) and seen[-1][1] < seen[-1][2]
    seen.clear()
    profile(
        base,
        skills=["agreement"],
        items=8,
        cache=MarginCache(),
        progress=lambda *news: seen.append(news),
    )
    assert seen[-1][1] == seen[-1][2]


def test_nan_weights_give_nan_margins(tmp_path):
    model = tiny.model("llama")
    model.model.layers[3].mlp.down_proj.weight.data[0, 0] = math.nan
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    score = profile(base, skills=["copying"], items=8).scores["copying"]
    assert all(map(math.isnan, score.margins)) and math.isnan(score.mean)
    assert score.accuracy == 0 and not score.beats_chance
    sound = profile(base, Plan.parse("0:3", 6), skills=["copying"], items=8).scores["copying"]
    assert all(map(math.isfinite, sound.margins))


def test_a_base_that_is_read_from_disk_gives_the_same(tiny_folder, monkeypatch):
    folder = str(tiny_folder("llama"))
    options = dict(skills=["lookup", "sums_2"], items=8)
    expected = profile(Base.open(folder), Plan.parse("0:2, 1:6", 6), **options)
    base = Base.open(folder, from_disk=True)
    base.load()
    monkeypatch.setattr(base, "reads_from_disk", True)
    found = profile(base, Plan.parse("0:2, 1:6", 6), cache=MarginCache(), **options)
    for key, score in expected.scores.items():
        assert found.scores[key].margins == pytest.approx(score.margins, abs=1e-4)
        assert replace(found.scores[key], margins=score.margins) == score
