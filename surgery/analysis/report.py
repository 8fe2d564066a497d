"""What `scan`, `suggest` and `compare` say: as JSON, or as tables for a terminal.

Knows how numbers are set. What they are is measured elsewhere in this package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from surgery.plan import Plan

from .compare import Comparison, Guess
from .scan import Scan, Variant, best_blocks, overlooked
from .score import Score
from .suggest import Suggestion

if TYPE_CHECKING:
    from surgery.base import Base

_WORST = 10  # tokens that a comparison shows
_BLOCKS = 10


def plain(value):
    """For JSON: infinities become null."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------- scan


def scan_json(base: Base, text: str, scan: Scan) -> dict:
    """Every score, by layer. `perplexity` is the base's; intervals are of 95 %."""
    score = scan.perplexity
    found = {
        "base": base.name,
        "text": text,
        "tokens": scan.tokens,
        "sequences": scan.sequences,
        "perplexity": score.perplexity,
        "low": score.low,
        "high": score.high,
    }
    if scan.block_influence is not None:
        found["block_influence"] = scan.block_influence
        found["block_influence_intervals"] = scan.influence_intervals
    if scan.angular is not None:
        found["angular"] = scan.angular
        found["best_blocks"] = [
            {"n": b.n, "start": b.start, "end": b.end, "distance": b.distance}
            for b in best_blocks(scan)
        ]
    for name in ("drop_one", "repeat_one"):
        if rows := getattr(scan, name):
            found[name] = [{"layer": row.layer, **_variant(row)} for row in rows]
    if scan.repeat_map is not None:
        found["repeat_map"] = [
            {"start": i, "end": j, **_variant(row)} for (i, j), row in scan.repeat_map.items()
        ]
    if scan.taylor is not None:
        found["taylor"] = scan.taylor
    found["overlooked"] = overlooked(scan)
    found["layer_forwards"] = scan.layer_forwards
    found["naive_layer_forwards"] = scan.naive_layer_forwards
    return plain(found)


def _variant(row: Variant) -> dict:
    found = {"perplexity": row.perplexity, "low": row.low, "high": row.high}
    if row.cost is not None:
        found |= {"cost": row.cost.mean, "cost_low": row.cost.low, "cost_high": row.cost.high}
    return found | ({"refused": row.refused} if row.refused else {})


def scan_tables(base: Base, scan: Scan) -> Iterator[Table | str]:
    """The same for people."""
    score = scan.perplexity
    yield (
        f"Perplexity {_ppl(score.perplexity)} ({_ppl(score.low)} to {_ppl(score.high)}), "
        f"{scan.tokens:,} tokens scored in {scan.sequences:,} sequences.\n"
    )
    table, columns = _table("layer"), []
    if any(base.kinds):
        columns.append(("kind", lambda i: escape(base.kinds[i]), "left"))
    if scan.block_influence:
        columns.append(("influence", lambda i: _number(scan.block_influence[i], ".4f"), "right"))
    if scan.taylor:
        columns.append(("Taylor", lambda i: f"{scan.taylor[i]:.4g}", "right"))
    for name, rows in (("without it", scan.drop_one), ("twice", scan.repeat_one)):
        if rows:
            columns.append((name, lambda i, rows=rows: _ppl(rows[i].perplexity), "right"))
            columns.append(("nats/token", lambda i, rows=rows: _cost(rows[i]), "right"))
    for heading, _, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=True)
    odd = overlooked(scan)
    for i in range(scan.depth):
        style = "red" if i in odd else ""
        table.add_row(str(i), *(cell(i) for _, cell, _ in columns), style=style)
    if columns:
        yield table
    if odd:
        yield (
            f"\nBlock Influence calls these layers harmless, and they are not: "
            f"{', '.join(map(str, odd))}."
        )
    if blocks := best_blocks(scan)[:_BLOCKS]:
        yield "\nBest blocks to drop, by angular distance:"
        table = _table("layers", "from:to")
        table.add_column("distance", justify="right")
        for block in blocks:
            table.add_row(str(block.n), f"{block.start}:{block.end}", f"{block.distance:.4f}")
        yield table
    if scan.repeat_map:
        yield "\nBest blocks to repeat, by measured perplexity:"
        table = _table("from:to")
        for heading in ("perplexity", "nats/token"):
            table.add_column(heading, justify="right")
        found = [(k, v) for k, v in scan.repeat_map.items() if v.perplexity is not None]
        for (i, j), row in sorted(found, key=lambda one: one[1].perplexity)[:_BLOCKS]:
            table.add_row(f"{i}:{j}", _ppl(row.perplexity), _cost(row))
        yield table
    reasons = {v.refused for v in (*scan.drop_one, *scan.repeat_one) if v.refused}
    for reason in sorted(reasons):
        yield escape(f"\nNot measured where there is no number: {reason}")
    if scan.naive_layer_forwards:
        share = scan.layer_forwards / scan.naive_layer_forwards
        yield (
            f"\n{scan.layer_forwards:,} layer-forwards, {share:.0%} of the "
            f"{scan.naive_layer_forwards:,} that whole passes would take."
        )


# ---------------------------------------------------------------------- suggest


def suggest_json(base: Base, text: str, whole: Score, found: Sequence[Suggestion]) -> dict:
    """Every suggestion, cheapest first, beside the base's own perplexity."""
    return plain(
        {
            "base": base.name,
            "text": text,
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
                }
                for one in found
            ],
        }
    )


def suggest_tables(base: Base, whole: Score, found: Sequence[Suggestion]) -> Iterator[Table | str]:
    """The same for people."""
    yield f"The base: perplexity {_ppl(whole.perplexity)}, {whole.tokens:,} tokens scored.\n"
    table = _table("method", "plan")
    for heading in ("parameters", "expected", "measured", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        expected = _ppl(one.expected) if one.scale == "perplexity" else ""
        score = one.measured
        table.add_row(
            one.method,
            str(one.plan),
            f"{base.preview(one.plan).parameters:,}",
            expected,
            _ppl(score.perplexity) if score else "",
            f"{_ppl(score.low)} to {_ppl(score.high)}" if score else "",
        )
    yield table
    yield ""
    for one in found:
        yield escape(f"{one.method}: {one.words}")


# ---------------------------------------------------------------------- compare


def compare_json(base: Base, plan: Plan, text: str, found: Comparison) -> dict:
    """Both scores, the divergence, every token, and norms along depth."""
    norms = found.norms
    return plain(
        {
            "base": base.name,
            "plan": str(plan),
            "text": text,
            "tokens": found.base.tokens,
            "perplexity": {"base": _score(found.base), "patient": _score(found.patient)},
            "cost": {
                "nats_per_token": found.cost.mean,
                "low": found.cost.low,
                "high": found.cost.high,
            },
            "kl": {"nats_per_token": found.kl, "low": found.kl_low, "high": found.kl_high},
            "norms": norms and {"base": norms.base, "patient": norms.patient},
            "by_token": [
                {
                    "text": token.text,
                    "window": token.window,
                    "nll_base": token.nll_base,
                    "nll_patient": token.nll_patient,
                    "base_says": _guesses(token.base_says),
                    "patient_says": _guesses(token.patient_says),
                }
                for token in found.tokens
            ],
        }
    )


def compare_tables(plan: Plan, found: Comparison) -> Iterator[Table | str]:
    """The same for people, with the tokens that were hurt most."""
    table = _table("")
    for heading in ("base", "patient", "95 % of the patient"):
        table.add_column(heading, justify="right")
    a, b = found.base, found.patient
    span = f"{_ppl(b.low)} to {_ppl(b.high)}"
    table.add_row("perplexity", _ppl(a.perplexity), _ppl(b.perplexity), span)
    cost = found.cost
    table.add_row("nats/token", "", f"{cost.mean:+.4f}", f"{cost.low:+.4f} to {cost.high:+.4f}")
    span = f"{found.kl_low:.4f} to {found.kl_high:.4f}"
    table.add_row("KL, nats/token", "", f"{found.kl:.4f}", span)
    yield table
    yield f"\n{a.tokens:,} tokens scored. Most hurt:"
    table = _table("token", "nats", "base would say", "patient would say")
    worst = sorted(found.tokens, key=lambda token: -_finite(token.damage))[:_WORST]
    for token in worst:
        table.add_row(
            escape(repr(token.text)),
            f"{token.damage:+.2f}",
            _said(token.base_says),
            _said(token.patient_says),
        )
    yield table


def _guesses(guesses: Sequence[Guess]) -> list[dict]:
    return [{"text": g.text, "probability": g.probability} for g in guesses]


def _said(guesses: Sequence[Guess]) -> str:
    return escape(f"{guesses[0].text!r} {guesses[0].probability:.0%}") if guesses else ""


def _score(score: Score | None) -> dict:
    if score is None:
        return {"perplexity": None, "low": None, "high": None}
    return {"perplexity": score.perplexity, "low": score.low, "high": score.high}


# ---------------------------------------------------------------------- how numbers are set


def _table(*left: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in left:
        table.add_column(heading, no_wrap=True)
    return table


def _ppl(value: float | None) -> str:
    """A perplexity: 16.43, 217,924, ∞."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "∞"
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}" if value < 1e9 else f"{value:.2e}"


def _cost(row: Variant) -> str:
    return "" if row.cost is None or not math.isfinite(row.cost.mean) else f"{row.cost.mean:+.3f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
