"""The text, token by token, coloured by damage: the patient's loss minus the base's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from components.widgets.html_component import LiveHTML
from surgery.numbers import number, perplexity

if TYPE_CHECKING:
    from surgery.analysis import Comparison, Guess, Token


class Damage(LiveHTML):
    """The value is what `view` returns. Emits `select` with the index of a token that is picked."""

    stem = "damage"


def view(found: Comparison, picked: int) -> dict:
    """What is drawn: numbers on top, then every token."""
    return {
        "numbers": [
            _number(
                "Perplexity",
                "exp of the mean loss: how many equally likely tokens the model is choosing "
                "between. Lower is better. The range is the 95 % confidence interval.",
                f"{perplexity(found.base.perplexity)} → {perplexity(found.patient.perplexity)}",
                f"[{_span(found.base)}] → [{_span(found.patient)}]",
            ),
            _number(
                "Cost",
                "Rise in loss per token, paired token by token, in nats (1 nat: 2.7 times less "
                "likely).",
                f"{found.cost.mean:+.3f} nats per token",
                f"{found.cost.low:+.3f} to {found.cost.high:+.3f}",
            ),
            _number(
                "KL divergence",
                "How far the patient's predictions are from the base's, over the whole "
                "vocabulary. 0: identical.",
                f"{number(found.kl)} nats per token",
                f"{number(found.kl_low)} to {number(found.kl_high)}",
            ),
            _number(
                "Measured on",
                "More tokens make the ranges narrower.",
                f"{len(found.tokens):,} tokens",
                "95 % intervals by block bootstrap",
            ),
        ],
        "tokens": [_token(token) for token in found.tokens],
        "picked": picked,
    }


def worst(found: Comparison) -> int:
    """The index of the token that the patient is most surprised by, compared with the base."""
    damages = [t.damage if math.isfinite(t.damage) else math.inf for t in found.tokens]
    return max(range(len(damages)), key=damages.__getitem__)


def _token(token: Token) -> dict:
    return {
        "text": token.text,
        "window": token.window,
        "damage": _plain(token.damage),
        "base": _plain(token.nll_base),
        "patient": _plain(token.nll_patient),
        "baseSays": _says(token.base_guesses),
        "patientSays": _says(token.patient_guesses),
    }


def _says(guesses: tuple[Guess, ...]) -> list[list]:
    return [[guess.text, round(guess.probability, 4)] for guess in guesses]


def _plain(x: float) -> float | None:
    return round(x, 4) if math.isfinite(x) else None


def _number(label: str, hint: str, value: str, below: str) -> dict:
    return {"label": label, "hint": hint, "value": value, "below": below}


def _span(score) -> str:
    return f"{perplexity(score.low)}, {perplexity(score.high)}"
