"""Output of the commands `scan`, `suggest` and `compare`: as JSON, or as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.markup import escape
from rich.table import Table

from surgery.numbers import about
from surgery.numbers import perplexity as _perplexity
from surgery.plan import Plan

from .comparison import Comparison, Guess
from .findings import best_blocks, costs_by_layer, overlooked
from .importance import SCORES
from .judging import Judgement
from .layer_scan import Scan, Variant
from .methods import Suggestion
from .parts import Part
from .precision import median_precision, median_tokens
from .score import LossIncrease, Score
from .significance import tokens_needed

if TYPE_CHECKING:
    from surgery.base import Base

_WORST = 10  # tokens that a comparison lists
_BLOCKS = 10
_FINER = 0.1  # of a cost: what more text is proposed for
_SMALL = 0.01  # nats per token: 1 % of the perplexity
_Side = Literal["left", "right"]


def plain(value):
    """The value with null in place of NaN and infinities, for JSON."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------- scan


def _of_base(scan: Scan) -> Score:
    if scan.perplexity is None:
        raise ValueError("nothing is measured yet")
    return scan.perplexity


def scan_json(base: Base, text: str, scan: Scan) -> dict:
    """Every score by layer. `perplexity` is the base's; intervals are at 95 %."""
    score = _of_base(scan)
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


def part_line(part: Part) -> str:
    """The same in a line, with what to do next."""
    known = f", {part.known:,} were known" if part.known else ""
    what = f"Part {part.number} of {part.of}: {part.measured:,} variants measured{known}. "
    if part.missing:
        return what + (
            f"{part.missing:,} measurements of the whole scan are missing here: the same command "
            "without --part makes them and shows the scan."
        )
    return what + "The scan is complete here: the same command without --part shows it."


def _variant(row: Variant) -> dict:
    values = {"perplexity": row.perplexity, "low": row.low, "high": row.high}
    if row.cost is not None:
        values |= {"cost": row.cost.mean, "cost_low": row.cost.low, "cost_high": row.cost.high}
    return values | ({"refused": row.refused} if row.refused else {})


def scan_tables(base: Base, scan: Scan) -> Iterator[Table | str]:
    """The scores as tables and sentences for a terminal."""
    score = _of_base(scan)
    yield (
        f"Perplexity {_perplexity(score.perplexity)} ({_perplexity(score.low)} to "
        f"{_perplexity(score.high)}), {scan.tokens:,} tokens scored in {scan.sequences:,} "
        f"sequence{'' if scan.sequences == 1 else 's'}.\n"
    )
    if precision := _precision(scan):
        yield precision
    suspects = overlooked(scan)
    if columns := _columns(base, scan):
        table = _table("layer")
        for heading, _, justify in columns:
            table.add_column(heading, justify=justify, no_wrap=True)
        for i in range(scan.depth):
            style = "red" if i in suspects else ""
            table.add_row(str(i), *(cell(i) for _, cell, _ in columns), style=style)
        yield table
    if suspects:
        yield (
            "\nBlock Influence is low for these layers, and the model breaks without them: "
            f"{', '.join(map(str, suspects))}."
        )
    if blocks := best_blocks(scan)[:_BLOCKS]:
        yield "\nBest blocks to drop, by angular distance:"
        table = _table("layers", "from:to")
        table.add_column("distance", justify="right")
        for block in blocks:
            table.add_row(str(block.n), f"{block.start}:{block.end}", f"{block.distance:.4f}")
        yield table
    for key, rows in scan.variants.items():
        if SCORES[key].of_blocks and rows:
            yield f"\nBest blocks to {SCORES[key].change}, by measured perplexity:"
            table = _table("from:to")
            for heading in ("perplexity", "nats/token"):
                table.add_column(heading, justify="right")
            measured = [
                (v.perplexity, span) for span, v in rows.items() if v.perplexity is not None
            ]
            for value, (i, j) in sorted(measured)[:_BLOCKS]:
                table.add_row(f"{i}:{j}", _perplexity(value), _cost(rows[i, j]))
            yield table
    reasons = {v.refused for rows in scan.variants.values() for v in rows.values() if v.refused}
    for reason in sorted(reasons):
        yield escape(f"\nNot measured where a number is missing: {reason}")
    if scan.naive_layer_forwards:
        share = scan.layer_forwards / scan.naive_layer_forwards
        yield (
            f"\n{scan.layer_forwards:,} layer-forwards, {share:.0%} of the "
            f"{scan.naive_layer_forwards:,} that whole passes would take."
        )


def _precision(scan: Scan) -> str:
    """How precisely costs of single layers are known, and what more precision takes."""
    costs = costs_by_layer(scan)
    share, finer = median_precision(costs), median_tokens(costs, scan.tokens, _FINER)
    if share is None or finer is None:
        return ""
    known = f"Costs of single layers are known to ± {share:.0%} (median).".replace("%", " %")
    if share <= _FINER:
        return f"{known}\n"
    return f"{known} --precision {100 * _FINER:g} takes about {about(finer):,} tokens.\n"


def _columns(base: Base, scan: Scan) -> list[tuple[str, Callable[[int], str], _Side]]:
    """The columns of the table by layer: (heading, the cell of a layer, alignment)."""
    columns: list[tuple[str, Callable[[int], str], _Side]] = []
    if any(base.kinds):
        columns.append(("kind", lambda i: escape(base.kinds[i]), "left"))
    for key, values in scan.values.items():
        if not SCORES[key].of_blocks:
            form = SCORES[key].number

            def value(i: int, values=values, form=form) -> str:
                return "" if values[i] is None else format(values[i], form)

            columns.append((SCORES[key].heading, value, "right"))
    for key, rows in scan.variants.items():
        if not SCORES[key].of_blocks and rows:

            def value_of(i: int, rows=rows) -> str:
                return _perplexity(rows[i, i + 1].perplexity) if (i, i + 1) in rows else ""

            def cost_of(i: int, rows=rows) -> str:
                return _cost(rows[i, i + 1]) if (i, i + 1) in rows else ""

            columns.append((SCORES[key].heading, value_of, "right"))
            columns.append(("nats/token", cost_of, "right"))
    return columns


# ---------------------------------------------------------------------- suggest


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


def suggest_tables(
    base: Base,
    whole: Score,
    suggestions: Sequence[Suggestion],
    judgements: Sequence[Judgement],
) -> Iterator[Table | str]:
    """The suggestions and their judgements as a table for a terminal."""
    tokens = f"{whole.tokens:,} tokens to choose on, {judgements[0].score.tokens:,} to judge on"
    yield f"The base: perplexity {_perplexity(whole.perplexity)}; {tokens}.\n"
    table = _table("method")
    for heading in ("parameters", "chosen at", "cost, nats", "95 % CI", "beats random"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one, judged in zip(suggestions, judgements, strict=True):
        beats = {None: "", True: "yes", False: "no"}[judged.beats_control]
        table.add_row(
            one.method,
            f"{base.preview(one.plan).parameters:,}",
            _perplexity(one.measured.perplexity) if one.measured else "",
            f"{judged.cost.mean:+.3f}",
            f"{judged.cost.low:+.3f} to {judged.cost.high:+.3f}",
            beats,
        )
    yield table
    yield ""
    yield (
        "chosen at: perplexity on the text to choose on. cost: increase of the loss over the\n"
        "base's on the text to judge on, per token. beats random: better than the mean of\n"
        "random plans by more than chance.\n"
    )
    for one in suggestions:
        yield escape(f"{one.method}: {one.plan}\n  {one.words}")


# ---------------------------------------------------------------------- compare


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


def compare_tables(plan: Plan, result: Comparison) -> Iterator[Table | str]:
    """The summary, and the tokens whose loss increased most, as tables for a terminal."""
    table = _table("")
    for heading in ("base", "patient", "95 % CI of the patient"):
        table.add_column(heading, justify="right")
    a, b = result.base, result.patient
    span = f"{_perplexity(b.low)} to {_perplexity(b.high)}"
    table.add_row("perplexity", _perplexity(a.perplexity), _perplexity(b.perplexity), span)
    cost = result.cost
    table.add_row("nats/token", "", f"{cost.mean:+.4f}", f"{cost.low:+.4f} to {cost.high:+.4f}")
    span = f"{result.kl_low:.4f} to {result.kl_high:.4f}"
    table.add_row("KL, nats/token", "", f"{result.kl:.4f}", span)
    yield table
    yield f"\n{a.tokens:,} tokens scored.{_enough(a, b)} Largest increases of the loss:"
    table = _table("token", "nats", "base predicts", "patient predicts")
    worst = sorted(result.tokens, key=lambda token: -_finite(token.damage))[:_WORST]
    for token in worst:
        table.add_row(
            escape(repr(token.text)),
            f"{token.damage:+.2f}",
            _best(token.base_guesses),
            _best(token.patient_guesses),
        )
    yield table


def _enough(base: Score, patient: Score) -> str:
    """How much text a small difference would take, by how much those of these tokens scatter."""
    needed = tokens_needed(np.subtract(patient.nll, base.nll), _SMALL)
    if not needed:
        return ""
    return f" To detect {_SMALL} nats takes about {about(needed):,} tokens of such text."


def _guesses(guesses: Sequence[Guess]) -> list[dict]:
    return [{"text": g.text, "probability": g.probability} for g in guesses]


def _best(guesses: Sequence[Guess]) -> str:
    return escape(f"{guesses[0].text!r} {guesses[0].probability:.0%}") if guesses else ""


def _score(score: Score | None) -> dict:
    if score is None:
        return {"perplexity": None, "low": None, "high": None}
    return {"perplexity": score.perplexity, "low": score.low, "high": score.high}


# ---------------------------------------------------------------------- cells


def _table(*left: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in left:
        table.add_column(heading, no_wrap=True)
    return table


def _cost(row: Variant) -> str:
    if row.cost is None or not math.isfinite(row.cost.mean):
        return ""
    return f"{row.cost.mean:+.3f}"


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
