"""Texts as windows of tokens."""

import pytest
import tiny
from tokenizers import processors

from surgery import Base, Plan, SurgeryError, texts
from surgery.analysis import Sample, compare, logit_lens, perplexity, scan


@pytest.fixture
def base(tiny_folder):
    return Base.open(str(tiny_folder("llama")))


def test_windows_hold_the_whole_text(base):
    text = "".join(chr(40 + i % 80) for i in range(1000))
    sample = Sample.of(base, text, window=64)
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [i for window in sample.windows for i in window] == ids
    assert {len(window) for window in sample.windows} == {62, 63} and len(sample) == 16
    assert sample.tokens == 1000 - 16 and not sample.truncated


def test_batches_are_of_one_length(base):
    sample = Sample.of(base, "x" * 1000, window=64)
    batches = sample.batches(200)
    assert [i for start, end in batches for i in range(start, end)] == list(range(16))
    for start, end in batches:
        assert len({len(window) for window in sample.windows[start:end]}) == 1
        assert sum(map(len, sample.windows[start:end])) <= 200
    assert len(sample.batches(1)) == 16


def test_a_limit_cuts_and_says_so(base):
    sample = Sample.of(base, ["a" * 100, "b" * 100, "c" * 100], window=50, limit=150)
    assert sum(map(len, sample.windows)) == 150 and sample.truncated
    assert all(len(set(window)) == 1 for window in sample.windows)  # texts don't mix


def test_a_tokenizer_that_begins_texts_begins_windows(base, monkeypatch):
    own = base.tokenizer

    class Beginning:
        bos_token_id = 1

        def __call__(self, text, add_special_tokens=True, **options):
            ids = own(text, add_special_tokens=False)["input_ids"]
            return {"input_ids": [1, *ids] if add_special_tokens else ids}

    monkeypatch.setattr(Base, "tokenizer", Beginning())
    sample = Sample.of(base, "x" * 90, window=31)
    assert [window[0] for window in sample.windows] == [1, 1, 1]
    assert sample.tokens == 90  # every token of the text is scored


def test_a_key_is_of_tokens_and_windows(base):
    a, b = (Sample.of(base, "x" * 90, window=w) for w in (31, 45))
    assert a.key == Sample.of(base, "x" * 90, window=31).key != b.key


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "too short"),
        ("too short", {}, "too short: 8 tokens would be scored"),
        ("x" * 90, {"window": 1}, "2 to 256 tokens"),
        ("x" * 90, {"window": 257}, "2 to 256 tokens"),
        ("x" * 90, {"limit": 2}, "at least 16 tokens"),
        ("x" * 90 + "\udc80", {}, "UTF-8"),
    ],
)
def test_what_can_not_be_measured(base, text, options, message):
    with pytest.raises(SurgeryError, match=message):
        Sample.of(base, text, **options)


def test_a_base_without_a_tokenizer(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    with pytest.raises(SurgeryError, match="has no tokenizer"):
        Sample.of(Base.open(str(tmp_path)), "x" * 90)


def test_the_four_texts(bundled):
    assert set(texts.TEXTS) == {"prose", "code", "facts", "dialogue"}
    for text in texts.TEXTS.values():
        assert 400 <= Sample.of(bundled, text).tokens <= 700
    with pytest.raises(SurgeryError, match="no text “poem”"):
        texts.get("poem")


@pytest.fixture
def few(tmp_path):
    """A base whose tokenizer has more tokens than its embeddings have rows: “z” is none of them."""
    tiny.model("llama", vocab_size=93).save_pretrained(tmp_path / "few")
    tiny.tokenizer().save_pretrained(tmp_path / "few")
    return Base.open(str(tmp_path / "few"))


def test_a_larger_tokenizer_is_no_matter_as_long_as_its_tokens_do_not_occur(few):
    assert len(few.tokenizer) > few.known_tokens == 93
    text = "abc " * 200
    plan = Plan.parse("0:3, 4:6", 6)
    sample = Sample.of(few, text + "z" * 50, limit=600)  # what is cut off does not count
    assert perplexity(few.model, sample).tokens == sample.tokens
    assert compare(few, plan, sample).patient.tokens == sample.tokens
    assert scan(few, sample, scores=["drop_one"]).tokens == sample.tokens
    with pytest.raises(SurgeryError, match=r"“z” is token 93 .* only for the first 93"):
        Sample.of(few, text + "z" * 50)
    with pytest.raises(SurgeryError, match="“z” is token 93"):
        logit_lens(few, few.tokenizer("xyz")["input_ids"])


def test_a_special_token_that_the_model_does_not_have_is_left_out(tmp_path):
    tiny.model("llama", vocab_size=98).save_pretrained(tmp_path)
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<new>"})  # token 98
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<new> $A", special_tokens=[("<new>", 98)]
    )
    tokenizer.save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    assert base.tokenizer("a")["input_ids"][0] == 98
    sample = Sample.of(base, "abc " * 40)
    assert perplexity(base.model, sample).tokens == sample.tokens
