"""The text, token by token, coloured by damage: the patient's loss minus the base's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import orjson  # as Gradio does

from components.widgets.html_component import LiveHTML
from surgery.numbers import number, perplexity

if TYPE_CHECKING:
    from surgery.analysis import Comparison, Guess, Token


class Damage(LiveHTML):
    """The value is what `view` returns. Emits `select` with the index of a token that is picked."""

    stem = "damage"


def view(comparison: Comparison, picked: int) -> dict:
    """What is drawn: numbers on top, then every token. The tokens are sent as one text: with every
    message Gradio's page copies all values, and those of the tokens can be a hundred thousand."""
    base, patient = comparison.base, comparison.patient
    return {
        "numbers": [
            _number(
                "Perplexity",
                "exp of the mean loss: how many equally likely tokens the model is choosing "
                "between. Lower is better. The range is the 95 % confidence interval.",
                f"{perplexity(base.perplexity)} → {perplexity(patient.perplexity)}",
                f"[{_span(base)}] → [{_span(patient)}]",
            ),
            _number(
                "Cost",
                "Rise in loss per token, paired token by token, in nats (1 nat: 2.7 times less "
                "likely).",
                f"{_signed(comparison.cost.mean)} nats per token",
                f"{_signed(comparison.cost.low)} to {_signed(comparison.cost.high)}",
            ),
            _number(
                "KL divergence",
                "How far the patient's predictions are from the base's, over the whole "
                "vocabulary. 0: identical.",
                f"{number(comparison.kl)} nats per token",
                f"{number(comparison.kl_low)} to {number(comparison.kl_high)}",
            ),
            _number(
                "Measured on",
                "More tokens make the ranges narrower.",
                f"{len(comparison.tokens):,} tokens",
                "95 % intervals by block bootstrap",
            ),
        ],
        "tokens": orjson.dumps([_token(token) for token in comparison.tokens]).decode(),
        "picked": picked,
    }


def worst(comparison: Comparison) -> int:
    """The index of the token that the patient is most surprised by, compared with the base."""
    damages = [t.damage if math.isfinite(t.damage) else math.inf for t in comparison.tokens]
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


def _signed(x: float) -> str:
    return f"{x:+.3f}".replace("-", "−")


def _number(label: str, hint: str, value: str, below: str) -> dict:
    return {"label": label, "hint": hint, "value": value, "below": below}


def _span(score) -> str:
    return f"{perplexity(score.low)}, {perplexity(score.high)}"
