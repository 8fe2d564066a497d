"""Items about time: which day or month follows, and which of two comes first."""

from __future__ import annotations

from random import Random

from .item import Item
from .words import NAMES

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_NEXT_DAY = (
    "{a} arrived on {now}. {b} arrived one day later, on",
    "{a} and {b} met on {now}. The next day was",
    "{a} told {b} that it was {now} and that the next day was",
)
_NEXT_MONTH = (
    "{a} arrived in {now}. {b} arrived one month later, in",
    "{a} and {b} met in {now}. The next month was",
    "{a} told {b} that it was {now} and that the next month was",
)
_WRONG = 3


def following(random: Random) -> Item:
    """The day or month after the one in the prompt. Wrong: others that the prompt doesn't have."""
    cycle, texts = random.choice(((_DAYS, _NEXT_DAY), (_MONTHS, _NEXT_MONTH)))
    at = random.randrange(len(cycle))
    now, then = cycle[at - 1], cycle[at]
    a, b = random.sample(NAMES, 2)
    wrong = random.sample([name for name in cycle if name not in (now, then)], _WRONG)
    prompt = random.choice(texts).format(a=a, b=b, now=now)
    return Item(prompt, f" {then}", tuple(f" {name}" for name in wrong))


def first_of_two(random: Random) -> Item:
    """Who of two was born, or leaves, first? The first one in the prompt in half of the items."""
    a, b = random.sample(NAMES, 2)
    if random.randrange(2):
        years = random.sample(range(1900, 2000), 2)
        prompt = f"{a} was born in {years[0]} and {b} in {years[1]}. The older of the two is"
        right, wrong = (a, b) if years[0] < years[1] else (b, a)
    else:
        months = random.sample(range(len(_MONTHS)), 2)
        one, other = (_MONTHS[i] for i in months)
        prompt = f"{a} leaves in {one} and {b} in {other} of this year. The first to leave is"
        right, wrong = (a, b) if months[0] < months[1] else (b, a)
    return Item(prompt, f" {right}", (f" {wrong}",))
