"""Which untrained copies of layers cost least perplexity? Measured on the bundled model.

Plans are chosen on one text of each kind and judged on another. Writes
docs/explanation/duplicates.md, its figure and its numbers; every sentence is computed from the
numbers. Takes some minutes on two cores.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from surgery import Base, Plan, texts
from surgery.analysis import LossIncrease, Sample, Score, measure_all, measured_score
from surgery.analysis.significance import LEVEL, benjamini_hochberg, p_value
from surgery.numbers import perplexity

DOCS = Path(__file__).parent.parent / "docs" / "explanation"
CHARACTERS = 1150  # of a text of each of the four kinds: one window of about 256 tokens
PLACES = (2, 6, 10, 14, 18, 22, 26)
#: How one copy is initialised, and the plan that adds it after layer i of a base of 30 layers.
ONE = {
    "copy": "0:{n}, {i}:30",
    "@scale=0.75": "0:{n}, {i}@scale=0.75, {n}:30",
    "@scale=0.5": "0:{n}, {i}@scale=0.5, {n}:30",
    "@scale=0.25": "0:{n}, {i}@scale=0.25, {n}:30",
    "both @scale=0.5": "0:{i}, {i}@scale=0.5, {i}@scale=0.5, {n}:30",
    "@average": "0:{n}, {i}@average, {n}:30",
    "@identity": "0:{n}, {i}@identity, {n}:30",
}
#: Where six layers are added; {x} is their initialisation.
SIX = {
    "in place, together": "0:12, " + ", ".join(f"{i}, {i}{{x}}" for i in range(12, 18)) + ", 18:30",
    "in place, spread": ", ".join(
        f"{i}:{i + 3}, {i + 2}{{x}}, {i + 3}:{i + 5}" for i in range(0, 30, 5)
    ),
    "stacked (SOLAR, RYS)": "0:18, 12:18{x}, 18:30",
    "interleaved": "0:13, 10:13{x}, 13:20, 17:20{x}, 20:30",
}
INITIALISATIONS = ("", "@scale=0.5", "@scale=0.25", "@average", "@identity")
#: Every layer twice.
TWICE = {
    "in place": ", ".join(f"{i}, {i}{{x}}" for i in range(30)),
    "stacked": "0:30, 0:30{x}",
}
TWICE_INITIALISATIONS = ("", "@scale=0.5", "@scale=0.25")


@dataclass(frozen=True)
class Row:
    """One row of a table: what was added, the plan or plans, what they cost on the text to choose
    on, and all else on the text to judge on. `p` is that of the difference from plain copies at the
    same place, corrected for the number of rows of the table; None for those."""

    what: str
    plans: tuple[str, ...]
    chosen: LossIncrease
    perplexity: float
    cost: LossIncrease
    least: float
    most: float
    p: float | None = None


def main() -> None:
    """Measure, and write docs/explanation/duplicates.md, .svg and .json."""
    base = Base.open("bundled")
    samples = [
        Sample.of(base, [texts.get(kind, half)[:CHARACTERS] for kind in texts.TEXTS], window=512)
        for half in ("choose", "judge")
    ]
    wholes = [measured_score(base, Plan.whole(30), sample) for sample in samples]
    groups = {title: dict(rows) for title, rows in _groups().items()}
    plans = {p for rows in groups.values() for some in rows.values() for p in some}
    parsed = {text: Plan.parse(text, 30) for text in sorted(plans)}

    def show(what: str, done: float, total: float) -> None:
        print(f"\r{what}: {done:.0f} of {total:.0f} layer-forwards", end="", flush=True)

    scores = [measure_all(base, list(parsed.values()), sample, show) for sample in samples]
    print()
    tables = {
        title: _rows(
            {
                what: (some, *([found[parsed[p]] for p in some] for found in scores))
                for what, some in rows.items()
            },
            wholes,
        )
        for title, rows in groups.items()
    }
    write(base, samples, wholes, tables)


def _groups() -> dict[str, dict[str, tuple[str, ...]]]:
    """{table: {row: plans}}."""
    one = {what: tuple(text.format(i=i, n=i + 1) for i in PLACES) for what, text in ONE.items()}
    six = {
        f"{where}, {x or 'copy'}": (text.format(x=x),)
        for where, text in SIX.items()
        for x in INITIALISATIONS
    }
    twice = {
        f"{where}, {x or 'copy'}": (text.format(x=x),)
        for where, text in TWICE.items()
        for x in TWICE_INITIALISATIONS
    }
    return {"One layer added": one, "Six layers added": six, "Every layer twice": twice}


def _rows(
    measured: dict[str, tuple[Sequence[str], list[Score], list[Score]]], wholes: Sequence[Score]
) -> list[Row]:
    """The rows of a table. Losses of several plans are averaged token by token before the interval
    is taken."""
    rows, means = [], {}
    for what, (plans, chosen, judged) in measured.items():
        first, second = (
            Score.of(np.mean([s.nll for s in some], axis=0)) for some in (chosen, judged)
        )
        means[what] = second
        costs = [score.mean - wholes[1].mean for score in judged]
        cost = LossIncrease.of(second, wholes[1])
        at_first = LossIncrease.of(first, wholes[0])
        rows.append(
            Row(what, tuple(plans), at_first, second.perplexity, cost, min(costs), max(costs))
        )
    copies = {row.what: means[_copy_of(row.what)] for row in rows if _copy_of(row.what) != row.what}
    raw = [p_value(np.subtract(means[what].nll, copy.nll)) for what, copy in copies.items()]
    values = benjamini_hochberg([1.0 if p is None else p for p in raw])
    corrected = dict(zip(copies, values, strict=True))
    return [replace(row, p=corrected.get(row.what)) for row in rows]


def _copy_of(what: str) -> str:
    """The row of plain copies at the same place."""
    where, comma, _ = what.rpartition(", ")
    return f"{where}{comma}copy"


# ---------------------------------------------------------------------- output


def write(
    base: Base, samples: Sequence[Sample], wholes: Sequence[Score], tables: dict[str, list[Row]]
) -> None:
    """Write the page, its figure, and the numbers."""
    facts = {
        "base": base.name,
        "tokens": samples[1].tokens,
        "tokens_to_choose": samples[0].tokens,
        "perplexity": wholes[1].perplexity,
        "low": wholes[1].low,
        "high": wholes[1].high,
        "tables": {
            title: [
                {
                    "what": row.what,
                    "plans": row.plans,
                    "perplexity": row.perplexity,
                    "cost": row.cost.mean,
                    "cost_low": row.cost.low,
                    "cost_high": row.cost.high,
                    "least": row.least,
                    "most": row.most,
                    "chosen_at": row.chosen.mean,
                    "p_against_copy": row.p,
                }
                for row in rows
            ]
            for title, rows in tables.items()
        },
    }
    place = DOCS / "duplicates"
    place.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    place.with_suffix(".svg").write_text(picture(tables), encoding="utf-8")
    place.with_suffix(".md").write_text(page(base, samples, wholes, tables), encoding="utf-8")


def page(
    base: Base, samples: Sequence[Sample], wholes: Sequence[Score], tables: dict[str, list[Row]]
) -> str:
    """The study as Markdown."""
    one, six, twice = tables.values()
    sample, whole = samples[1], wholes[1]
    parts = [
        "# Which untrained copy costs least?",
        "",
        "Written by `python -m benchmarks duplicates`; don't edit it by hand. Numbers:",
        "[duplicates.json](duplicates.json).",
        "",
        f"{base.name} ({base.note or base.kind}), {base.depth} layers, in {base.compute_dtype}.",
        f"Text: {sample.tokens:,} tokens scored in {len(sample)} sequences, the beginning of a",
        f"text of each kind (prose, code, facts, dialogue). The base's perplexity on them is "
        f"{whole.perplexity:.2f} ({whole.low:.2f} to",
        f"{whole.high:.2f}).",
        "",
        f"Which row is best was *chosen* on other texts of the same kinds, {samples[0].tokens:,} "
        "tokens,",
        "whose cost is the column of that name. Every other number is of the texts to *judge* on,",
        "where nothing was picked ([why](scores.md#judging)). The column p tells rows from plain",
        "copies at the same place, corrected for the number of rows of the table.",
        "",
        "Nothing is trained: this is where healing would start. A cost is the increase of the mean",
        "loss over the base's on the same tokens, in nats per token, with a 95 % interval from a",
        "paired block bootstrap ([how](scores.md#intervals)). It holds for this model and these",
        "texts.",
        "",
        "![Costs of duplicates with their intervals](duplicates.svg)",
        "",
        *_summary(one, six, twice),
    ]
    notes = {
        "One layer added": f"Layer i and a copy after it, for i = "
        f"{', '.join(map(str, PLACES))}; costs are means over these places, with their minimum "
        "and maximum. “both” scales the layer and its copy.",
        "Six layers added": "36 layers; each row names the initialisation of the added ones. "
        + " ".join(f"{w[0].upper() + w[1:]}: `{_short(t)}`." for w, t in SIX.items()),
        "Every layer twice": "60 layers.",
    }
    for title, rows in tables.items():
        parts += ["", f"## {title}", "", notes[title], ""]
        several = any(len(row.plans) > 1 for row in rows)
        parts.append(
            "| initialisation | chosen at | perplexity | nats/token | 95 % CI | p |"
            + (" min | max |" if several else "")
        )
        parts.append("|---|---|---|---|---|---|" + ("---|---|" if several else ""))
        for row in sorted(rows, key=lambda row: row.cost.mean):
            cells = [
                row.what,
                f"{row.chosen.mean:+.3f}",
                perplexity(row.perplexity),
                f"{row.cost.mean:+.3f}",
                f"{row.cost.low:+.3f} to {row.cost.high:+.3f}",
                "" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}",
            ]
            if several:
                cells += [f"{row.least:+.3f}", f"{row.most:+.3f}"]
            parts.append(f"| {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


def _summary(one: Sequence[Row], six: Sequence[Row], twice: Sequence[Row]) -> list[str]:
    """The main results as sentences."""
    lines = ["## Summary", ""]
    for name, rows in (("One copy", one), ("Six copies", six), ("Twice the depth", twice)):
        real = [r for r in rows if "identity" not in r.what]
        order = sorted(real, key=lambda r: r.cost.mean)
        chosen = min(real, key=lambda r: r.chosen.mean)
        rank = order.index(chosen) + 1
        lines.append(
            f"- {name}: “{chosen.what}” was chosen ({chosen.chosen.mean:+.3f} there), and costs "
            f"{_cost(chosen)}: {'the least' if rank == 1 else f'number {rank}'} of {len(order)}. "
            f"“{order[-1].what}” costs most ({_cost(order[-1])})."
        )
        better = [r for r in real if r.p is not None and r.p < LEVEL and _gains(r, rows)]
        compared = [r for r in real if r.p is not None]
        lines.append(
            f"- {name}: {len(better)} of {len(compared)} rows are better than plain copies at "
            "their place by more than chance."
        )
        copies = [r for r in order if r.what == "copy" or r.what.endswith(", copy")]
        if len(copies) > 1:
            costs = "; ".join(f"{r.what.removesuffix(', copy')} {_cost(r)}" for r in copies)
            lines.append(f"- {name}, initialised as plain copies: {costs}.")
    identity = [row for rows in (one, six) for row in rows if "identity" in row.what]
    largest = max(abs(row.cost.mean) for row in identity)
    lines.append(
        f"- An identity costs nothing by construction; measured, at most {largest:.4f} nats per "
        "token."
    )
    return lines


def _gains(row: Row, rows: Sequence[Row]) -> bool:
    copy = next(r for r in rows if r.what == _copy_of(row.what))
    return row.cost.mean < copy.cost.mean


def _cost(row: Row) -> str:
    return f"{row.cost.mean:+.3f} [{row.cost.low:+.3f}, {row.cost.high:+.3f}]"


def _short(text: str) -> str:
    text = str(Plan.parse(text.format(x="@random"), 30)).replace("@random", "@…")
    return text


# ---------------------------------------------------------------------- the picture

WIDTH, LEFT, RIGHT, LINE, TOP = 860, 250, 40, 19, 34


def picture(tables: dict[str, list[Row]]) -> str:
    """Costs as points with their intervals, a panel for each table, as SVG."""
    parts, y = [], 10
    for title, rows in tables.items():
        drawn, height = _panel(title, sorted(rows, key=lambda row: row.cost.mean), y)
        parts += drawn
        y += height
    style = (
        "text{font:12px system-ui,sans-serif;fill:#222}.t{font-weight:600;font-size:14px}"
        ".a{fill:#666;font-size:11px}.g{stroke:#ddd}.z{stroke:#888}"
        ".i{stroke:#0072b2;stroke-width:2}.p{fill:#0072b2}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">\n'
        f"<title>Costs of untrained duplicates, nats per token</title><style>{style}</style>\n"
        f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(title: str, rows: Sequence[Row], y: int) -> tuple[list[str], int]:
    low = min(0.0, *(row.cost.low for row in rows))
    high = max(row.cost.high for row in rows)
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if (high - low) / s <= 8)
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))

    def x(value: float) -> float:
        share = (value - first * step) / ((last - first) * step)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    bottom = y + TOP + LINE * len(rows)
    parts = [f'<text class="t" x="12" y="{y + 16}">{escape(title)}</text>']
    for tick in range(first, last + 1):
        at = x(tick * step)
        kind = "z" if tick == 0 else "g"
        parts.append(
            f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{y + 24}" y2="{bottom}"/>'
        )
        parts.append(
            f'<text class="a" x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">'
            f"{tick * step:g}</text>"
        )
    for i, row in enumerate(rows):
        at = y + TOP + LINE * i + 6
        cost = row.cost
        parts += [
            f'<text x="{LEFT - 12}" y="{at + 4}" text-anchor="end">{escape(row.what)}</text>',
            f'<line class="i" x1="{x(cost.low):.1f}" x2="{x(cost.high):.1f}" y1="{at}" y2="{at}"/>',
            f'<circle class="p" cx="{x(cost.mean):.1f}" cy="{at}" r="4"/>',
        ]
    parts.append(
        f'<text class="a" x="{WIDTH - RIGHT}" y="{y + 16}" text-anchor="end">'
        "nats per token, 95 % CI</text>"
    )
    return parts, TOP + LINE * len(rows) + 34
