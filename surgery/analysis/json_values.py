"""What scans, suggestions and comparisons are as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from surgery.io.finite_json import plain
from surgery.plan import Plan

from .comparison import Comparison, Guess
from .findings import best_blocks, costs_by_layer, overlooked
from .importance import SCORES
from .judging import Judgement
from .layer_scan import Scan, Variant
from .methods import Suggestion
from .parts import Part
from .precision import median_precision
from .score import LossIncrease, Score

if TYPE_CHECKING:
    from surgery.base import Base


def base_score(scan: Scan) -> Score:
    """The base's score on the text of a scan. Raises `ValueError` if nothing is measured yet."""
    if scan.perplexity is None:
        raise ValueError("nothing is measured yet")
    return scan.perplexity


def scan_json(base: Base, text: str, scan: Scan) -> dict:
    """Every score by layer. `perplexity` is the base's; intervals are at 95 %."""
    score = base_score(scan)
    result: dict = {
        "base": base.name,
        "text": text,
        "tokens": scan.tokens,
        "sequences": scan.sequences,
        "perplexity": score.perplexity,
        "low": score.low,
        "high": score.high,
    }
    for key, entry in SCORES.items():
        if key in scan.values:
            result[key] = scan.values[key]
        if key in scan.intervals:
            result[f"{key}_intervals"] = scan.intervals[key]
        if key == "angular" and scan.angular is not None:
            result["best_blocks"] = [
                {"n": b.n, "start": b.start, "end": b.end, "distance": b.distance}
                for b in best_blocks(scan)
            ]
        if entry.of_blocks and key in scan.variants:
            result[key] = [
                {"start": start, "end": end, **_variant(row)}
                for (start, end), row in scan.variants[key].items()
            ]
        elif rows := scan.variants.get(key):
            result[key] = [{"layer": row.layer, **_variant(row)} for row in rows.values()]
    result["precision"] = median_precision(costs_by_layer(scan))
    result["overlooked"] = overlooked(scan)
    result["layer_forwards"] = scan.layer_forwards
    result["naive_layer_forwards"] = scan.naive_layer_forwards
    return plain(result)


def part_json(base: Base, text: str, part: Part) -> dict:
    """What one part of a scan did."""
    return {
        "base": base.name,
        "text": text,
        "part": part.number,
        "parts": part.of,
        "measured": part.measured,
        "known": part.known,
        "missing": part.missing,
    }


def _variant(row: Variant) -> dict:
    values = {"perplexity": row.perplexity, "low": row.low, "high": row.high}
    if row.cost is not None:
        values |= {"cost": row.cost.mean, "cost_low": row.cost.low, "cost_high": row.cost.high}
    return values | ({"refused": row.refused} if row.refused else {})


def suggest_json(
    base: Base,
    text: str,
    whole: Score,
    suggestions: Sequence[Suggestion],
    judged_on: str = "",
    judgements: Sequence[Judgement] = (),
    controls: Sequence[Plan] = (),
) -> dict:
    """Every suggestion in order, and the base's own perplexity, on the `text` to choose on; and
    their judgements, if there are any, on the text `judged_on`, against random plans as
    `controls`."""
    return plain(
        {
            "base": base.name,
            "text": text,
            "judged_on": judged_on or None,
            "controls": list(map(str, controls)),
            "tokens": whole.tokens,
            "perplexity": whole.perplexity,
            "low": whole.low,
            "high": whole.high,
            "suggestions": [
                {
                    "method": one.method,
                    "plan": str(one.plan),
                    "layers": len(one.plan),
                    "parameters": base.preview(one.plan).parameters,
                    "expected": one.expected,
                    "scale": one.scale or None,
                    **_score(one.measured),
                    "words": one.words,
                    "judged": judged and _judged(judged),
                }
                for one, judged in zip_longest(suggestions, judgements)
            ],
        }
    )


def _judged(one: Judgement) -> dict:
    return {
        "tokens": one.score.tokens,
        **_score(one.score),
        "cost": _increase(one.cost),
        "gain_over_random": one.gain and _increase(one.gain),
        "p": one.p,
        "beats_random": one.beats_control,
    }


def _increase(cost: LossIncrease) -> dict:
    return {"nats_per_token": cost.mean, "low": cost.low, "high": cost.high}


def compare_json(base: Base, plan: Plan, text: str, result: Comparison) -> dict:
    """Both perplexities, the divergence, every token, and norms by layer."""
    norms = result.norms
    return plain(
        {
            "base": base.name,
            "plan": str(plan),
            "text": text,
            "tokens": result.base.tokens,
            "perplexity": {"base": _score(result.base), "patient": _score(result.patient)},
            "cost": _increase(result.cost),
            "kl": {"nats_per_token": result.kl, "low": result.kl_low, "high": result.kl_high},
            "norms": norms and {"base": norms.base, "patient": norms.patient},
            "by_token": [
                {
                    "text": token.text,
                    "window": token.window,
                    "nll_base": token.nll_base,
                    "nll_patient": token.nll_patient,
                    "base_says": _guesses(token.base_guesses),
                    "patient_says": _guesses(token.patient_guesses),
                }
                for token in result.tokens
            ],
        }
    )


def _guesses(guesses: Sequence[Guess]) -> list[dict]:
    return [{"text": g.text, "probability": g.probability} for g in guesses]


def _score(score: Score | None) -> dict:
    if score is None:
        return {"perplexity": None, "low": None, "high": None}
    return {"perplexity": score.perplexity, "low": score.low, "high": score.high}
