"""Items about what has to be closed: nested brackets, and the form of JSON."""

from __future__ import annotations

from random import Random

from .item import Item
from .words import NAMES, WORDS

_PAIRS = ("()", "[]", "{}")
# Three brackets open and some close. The innermost that is still open is the third, third, second,
# second, first and first one, so that none of the three is the better guess.
_PATTERNS = ("()((", "(()(", "((()", "()(()", "(()()", "((())")
_JSON = {'":': "", '"}': '": "{}', '"]': '": ["{}'}  # {what follows: the text since the last key}


def brackets(random: Random) -> Item:
    """Brackets of three kinds around words: which one has to close next?

    All three kinds are opened and closed before, so that a model has seen each of the answers.
    """
    first, kinds = random.sample(_PAIRS, 3), random.sample(_PAIRS, 3)
    words = iter(random.sample(WORDS, 6))
    parts = [f"{pair[0]} {next(words)} {pair[1]}" for pair in first]
    opened, still_open = iter(kinds), []
    for sign in random.choice(_PATTERNS):
        if sign == "(":
            still_open.append(next(opened))
            parts.append(f"{still_open[-1][0]} {next(words)}")
        else:
            parts.append(still_open.pop()[1])
    right = still_open[-1]
    wrong = tuple(f" {kind[1]}" for kind in kinds if kind != right)
    return Item(" ".join(parts), f" {right[1]}", wrong)


def json_form(random: Random) -> Item:
    """A piece of JSON that stops within a string: what has to follow the string?

    A colon after a key, a brace after an object's last value, a bracket after an element. Each is
    wrong where another is right. Commas are not among the answers: they are right after two of the
    three.
    """
    listed, element, key, value = random.sample(WORDS, 4)
    begun = f'{{"name": "{random.choice(NAMES)}", "{listed}": ["{element}"], "{key}'
    right = random.choice(list(_JSON))
    wrong = tuple(end for end in _JSON if end != right)
    return Item(begun + _JSON[right].format(value), right, wrong)
