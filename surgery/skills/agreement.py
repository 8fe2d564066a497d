"""Items of agreement: a verb has the number of its subject, not that of the noun next to it."""

from __future__ import annotations

from random import Random

from .item import Item

_SINGULAR = """
author boat book boy bridge cat chair coat doctor dog door engine farmer flower girl horse key king
lamp picture road teacher tree window
"""
_NOUNS = tuple((noun, f"{noun}s") for noun in _SINGULAR.split())
_BETWEEN = ("near", "behind", "beside", "in front of", "next to")
_VERBS = (("is", "are"), ("was", "were"), ("has", "have"))


def agreement(random: Random) -> Item:
    """“The keys near the door”: “ are” or “ is”? The noun in between has the other number."""
    subject, between = random.sample(_NOUNS, 2)
    number = random.randrange(2)  # 1 is the plural
    verb = random.choice(_VERBS)
    prompt = f"The {subject[number]} {random.choice(_BETWEEN)} the {between[1 - number]}"
    return Item(prompt, f" {verb[number]}", (f" {verb[1 - number]}",))
