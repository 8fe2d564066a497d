"""Skills, one entry per skill.

Profiles, their tables and the command line read `SKILLS`. To add a skill, add an entry and the
function that draws an item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from surgery.errors import SurgeryError

from .agreement import agreement
from .dates import first_of_two, following
from .item import Item
from .sequences import copying, lookup
from .structure import brackets, json_form
from .sums import one_digit, two_digits

ITEMS = 64  # of a skill, by default
FEWEST, MOST = 8, 1000


@dataclass(frozen=True)
class Skill:
    """A skill: `draw` makes an item of it. All of its items have equally many continuations."""

    key: str
    label: str
    hint: str
    draw: Callable[[Random], Item]


SKILLS = {
    skill.key: skill
    for skill in (
        Skill("copying", "copying", "a sequence of words, again", copying),
        Skill("lookup", "key lookup", "the value of a key in a list", lookup),
        Skill("brackets", "brackets", "which bracket closes", brackets),
        Skill("json", "JSON form", "what follows a string in JSON", json_form),
        Skill("agreement", "agreement", "a verb past a noun of the other number", agreement),
        Skill("sums_1", "1-digit sums", "7 + 8", one_digit),
        Skill("sums_2", "2-digit sums", "27 + 38", two_digits),
        Skill("dates", "dates", "the next day or month", following),
        Skill("order", "order", "which of two is earlier", first_of_two),
    )
}


def items_of(key: str, count: int = ITEMS, seed: int = 0) -> tuple[Item, ...]:
    """`count` items of a skill with prompts that differ: the same for a seed on every machine.

    Raises `SurgeryError` for a skill that isn't there, or a count outside `FEWEST` to `MOST`.
    """
    if key not in SKILLS:
        raise SurgeryError(f"There is no skill “{key[:40]}”. Skills: {', '.join(SKILLS)}.")
    if not FEWEST <= count <= MOST:
        raise SurgeryError(f"There can be {FEWEST} to {MOST:,} items of a skill.")
    random = Random(f"{key}:{seed}")
    items: dict[str, Item] = {}
    while len(items) < count:
        item = SKILLS[key].draw(random)
        items.setdefault(item.prompt, item)
    return tuple(items.values())
