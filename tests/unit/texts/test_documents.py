"""Texts of each kind: enough of them, and two halves that have nothing in common."""

import re
import sys

import pytest

from surgery import Base, SurgeryError, texts

TOKENS = 8000  # of each kind
SHARED = 8  # words in a row that two documents may not both have


@pytest.fixture(scope="module")
def tokenizer():
    return Base.open("bundled").tokenizer


@pytest.mark.parametrize("kind", texts.KINDS)
def test_there_is_enough_of_each_kind(tokenizer, kind):
    sizes = {
        half: sum(len(tokenizer(text)["input_ids"]) for text in texts.documents(kind, half))
        for half in ("choose", "judge")
    }
    assert sum(sizes.values()) >= TOKENS and min(sizes.values()) >= TOKENS // 2


@pytest.mark.parametrize("kind", texts.KINDS)
def test_the_halves_never_meet(kind):
    choose, judge = (texts.documents(kind, half) for half in ("choose", "judge"))
    assert not set(choose) & set(judge)
    assert set(choose) | set(judge) == set(texts.documents(kind))
    assert choose[0] == texts.get(kind) and judge[0] == texts.get(kind, "judge")


@pytest.mark.parametrize("kind", texts.TEXTS)
def test_the_halves_have_no_phrase_in_common(kind):
    choose, judge = (texts.documents(kind, half) for half in ("choose", "judge"))
    phrases = [
        {tuple(words[i : i + SHARED]) for i in range(len(words) - SHARED)}
        for half in (choose, judge)
        for words in [[w for text in half for w in re.findall(r"\w+", text.lower())]]
    ]
    assert len(phrases[0]) > 1000 and not phrases[0] & phrases[1]


def test_code_is_code():
    for text in texts.documents("code"):
        compile(text, "text", "exec")


def test_a_python_without_its_texts(monkeypatch):
    texts.documents.cache_clear()
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    monkeypatch.setattr(texts.python_library, "files", list)
    with pytest.raises(SurgeryError, match="without its documentation"):
        texts.documents("python-docs")
    with pytest.raises(SurgeryError, match="without the source"):
        texts.get("python-library", "judge")


def test_an_unknown_kind():
    with pytest.raises(SurgeryError, match="no text “poetry”"):
        texts.documents("poetry")
