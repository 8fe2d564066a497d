"""Items that are solved by looking back in the prompt: copying, and finding the value of a key."""

from __future__ import annotations

from random import Random

from .item import Item
from .words import WORDS

_LENGTH = 10  # words of a sequence
_SHOWN = 3  # words of its repetition in the prompt
_KEYS = 5
_WRONG = 3


def copying(random: Random) -> Item:
    """A sequence of arbitrary words that begins again somewhere within: which word follows?

    The wrong words occur once in the prompt, as the right one does, and as often before as behind
    it.
    """
    words = random.sample(WORDS, _LENGTH)
    before = random.randint(0, _WRONG)  # of the wrong words
    behind = _WRONG - before
    start = random.randint(before, _LENGTH - _SHOWN - 1 - behind)
    end = start + _SHOWN
    wrong = random.sample(words[:start], before) + random.sample(words[end + 1 :], behind)
    prompt = f"{' '.join(words)}\n{' '.join(words[start:end])}"
    return Item(prompt, f" {words[end]}", tuple(f" {word}" for word in wrong))


def lookup(random: Random) -> Item:
    """A list of keys with values, then one of the keys again. Wrong: the values of the others."""
    words = random.sample(WORDS, 2 * _KEYS)
    keys, values = words[:_KEYS], words[_KEYS:]
    asked = random.randrange(_KEYS)
    lines = [f"{key}: {value}\n" for key, value in zip(keys, values, strict=True)]
    wrong = tuple(f" {value}" for i, value in enumerate(values) if i != asked)
    return Item(f"{''.join(lines)}{keys[asked]}:", f" {values[asked]}", wrong)
