"""Properties that are computed on first use: once for each object, and without a lock."""

import threading

import pytest

from surgery import Base
from surgery.lazy_property import lazy_property


class Thing:
    """Something with a property."""

    def __init__(self, compute):
        self._compute = compute

    @lazy_property
    def value(self):
        """What it is worth."""
        return self._compute()


def test_it_is_computed_once():
    thing = Thing(lambda: object())
    assert thing.value is thing.value
    assert Thing.value.__doc__ == "What it is worth."


def test_an_error_is_not_kept():
    answers = iter([0, 2])
    thing = Thing(lambda: 2 // next(answers))
    with pytest.raises(ZeroDivisionError):
        _ = thing.value
    assert thing.value == 1


def test_those_who_come_at_the_same_time_get_one_result():
    def compute():
        if threading.current_thread() is late:
            early.start()
            early.join()
        return object()

    seen = {}
    thing = Thing(compute)
    early, late = (
        threading.Thread(target=lambda n=n: seen.__setitem__(n, thing.value), daemon=True)
        for n in ("early", "late")
    )
    late.start()
    late.join()
    assert seen["early"] is seen["late"] is thing.value


def test_a_tokenizer_that_takes_long_holds_up_no_other_base(tiny_folder, monkeypatch):
    slow, quick = Base.open(str(tiny_folder("llama"))), Base.open(str(tiny_folder("qwen3")))
    for base in (slow, quick):
        vars(base).pop("_tokenizer", None)
    seen = []

    def load(folder, name):
        if name == slow.name and not seen:
            other = threading.Thread(target=lambda: seen.append(quick.has_tokenizer), daemon=True)
            other.start()
            other.join(30)  # for ever, if it waited
            assert seen == [False]
        return None, "none here"

    monkeypatch.setattr("surgery.model.load_tokenizer", load)
    assert not slow.has_tokenizer
    for base in (slow, quick):
        vars(base).pop("_tokenizer")  # bases are shared by tests
