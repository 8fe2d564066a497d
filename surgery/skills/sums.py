"""Sums, after two that are solved. All answers of an item have the same number of digits.

The answers are drawn before the numbers to add: so the right one is as often any of them, and its
size or place among them gives nothing away.
"""

from __future__ import annotations

from random import Random

from .item import Item

_SHOTS = 2
_NEAR = 4  # answers next to each other


def one_digit(random: Random) -> Item:
    """Two numbers of one digit. Wrong: the numbers next to the sum."""
    first = random.choice([*range(2, 7), *range(10, 16)])
    answers = range(first, first + _NEAR)
    return _item(random, random.choice(answers), answers, 1, 9)


def two_digits(random: Random) -> Item:
    """Two numbers of two digits. Wrong: a ten more or less, a one more or less, and both."""
    tens, ones = random.randrange(2, 9), random.randrange(9)
    answers = [10 * ten + one for ten in (tens, tens + 1) for one in (ones, ones + 1)]
    return _item(random, random.choice(answers), answers, 10, 89)


def _item(random: Random, total: int, answers: range | list[int], low: int, high: int) -> Item:
    """Add two numbers from `low` to `high` to `total`."""
    shots: list[str] = []
    while len(shots) < _SHOTS:
        a, b = random.randint(low, high), random.randint(low, high)
        if a + b not in answers and len(str(a + b)) <= 2:
            shots.append(f"{a} + {b} = {a + b}\n")
    a = random.randint(max(low, total - high), min(high, total - low))
    wrong = tuple(f" {answer}" for answer in answers if answer != total)
    return Item(f"{''.join(shots)}{a} + {total - a} =", f" {total}", wrong)
