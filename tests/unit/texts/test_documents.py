"""The project's own texts: enough of each kind, and two halves that have nothing in common."""

import re

import pytest

from surgery import Base, SurgeryError, texts

TOKENS = 8000  # of each kind
SHARED = 8  # words in a row that two documents may not both have


@pytest.fixture(scope="module")
def tokenizer():
    return Base.open("bundled").tokenizer


@pytest.mark.parametrize("kind", texts.TEXTS)
def test_there_is_enough_of_each_kind(tokenizer, kind):
    sizes = {
        half: sum(len(tokenizer(text)["input_ids"]) for text in texts.documents(kind, half))
        for half in ("choose", "judge")
    }
    assert sum(sizes.values()) >= TOKENS and min(sizes.values()) >= TOKENS // 2


@pytest.mark.parametrize("kind", texts.TEXTS)
def test_the_halves_never_meet(kind):
    choose, judge = (texts.documents(kind, half) for half in ("choose", "judge"))
    assert not set(choose) & set(judge)
    assert set(choose) | set(judge) == set(texts.documents(kind))
    assert choose[0] == texts.get(kind)
    phrases = [
        {tuple(words[i : i + SHARED]) for i in range(len(words) - SHARED)}
        for half in (choose, judge)
        for words in [[w for text in half for w in re.findall(r"\w+", text.lower())]]
    ]
    assert len(phrases[0]) > 1000 and not phrases[0] & phrases[1]


def test_code_is_code():
    for text in texts.documents("code"):
        compile(text, "text", "exec")


def test_an_unknown_kind():
    with pytest.raises(SurgeryError, match="no text “poetry”"):
        texts.documents("poetry")
