"""Data sets, read from rows that lie here: no test needs a network."""

import json

import datasets
import pytest

from surgery import Cancelled, SurgeryError, texts
from surgery.texts.dataset import texts_of


@pytest.fixture
def rows(tmp_path):
    """A function: streamed rows of a JSON Lines file, as a data set of the Hub comes."""

    def rows(*values):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        file.write_text("".join(json.dumps(v) + "\n" for v in values), encoding="utf-8")
        return datasets.load_dataset("json", data_files=str(file), split="train", streaming=True)

    return rows


def test_rows_in_order_and_no_more_than_asked(rows):
    many = rows(*({"id": i, "text": f"text {i}" if i % 3 else " "} for i in range(20)))
    assert texts_of(many, "org/name", None, 4) == ["text 1", "text 2", "text 4", "text 5"]


def test_the_column_is_found_or_named(rows):
    two = rows({"title": "a", "content": "b", "n": 1})
    assert texts_of(two, "org/name", None, 9) == ["b"]
    assert texts_of(two, "org/name", "title", 9) == ["a"]
    assert texts_of(rows({"line": "only", "n": 1}), "org/name", None, 9) == ["only"]
    for column, message in (("n", "holds no text"), ("x", "no column “x”")):
        with pytest.raises(SurgeryError, match=message):
            texts_of(two, "org/name", column, 9)
    with pytest.raises(SurgeryError, match="Say which column"):
        texts_of(rows({"question": "a", "answer": "b"}), "org/name", None, 9)
    with pytest.raises(SurgeryError, match="holds no text"):
        texts_of(rows({"text": ""}), "org/name", None, 9)


def test_it_stops_when_asked(rows):
    def stop(what, done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        texts_of(rows({"text": "a"}), "org/name", None, 9, stop)


@pytest.mark.parametrize("name", ["json", "/etc/hosts", "../x", "tests/unit", "", "a/b/c"])
def test_only_names_of_the_hub_are_taken(name):
    with pytest.raises(SurgeryError, match="not a data set on the Hub"):
        texts.from_dataset(name)


def test_out_of_reach_is_said_plainly(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(SurgeryError, match=r"org/name can't be read \(ConnectionError: Couldn't"):
        texts.from_dataset("org/name")


def test_what_is_asked_of_the_hub(monkeypatch):
    asked = []

    def load(*arguments, **options):
        asked.append((arguments, options))
        return [{"text": "a"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert texts.from_dataset("org/name", "test", config="en") == ["a"]
    assert asked == [(("org/name", "en"), {"split": "test", "streaming": True})]
