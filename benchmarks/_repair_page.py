"""The study of repairs as a page of Markdown and a figure, from its numbers."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

METHODS = {  # columns, and their colours in the figure (Okabe and Ito's, for all kinds of sight)
    "alpha": "#e69f00",
    "damped": "#e69f00",
    "lstsq": "#56b4e9",
    "refit": "#0072b2",
    "healed": "#cc79a7",
    "refit, healed": "#009e73",
}
CUT = ("alpha", "lstsq", "refit", "healed", "refit, healed")
REPEAT = ("damped", "lstsq", "refit")
LEFT, WIDTH, LINE, TOP = 150, 760, 13, 58
LOWEST = -0.5  # share at the left edge; what is lower is drawn there


def write(kept: dict, place: Path) -> None:
    """Write the page and the figure beside the file at `place` that the numbers are from."""
    rows = _rows(kept["cells"])
    cuts = {what: row for what, row in rows.items() if "," not in what}
    repeats = {what: row for what, row in rows.items() if "," in what}
    place.with_suffix(".svg").write_text(_figure({**cuts, **repeats}), encoding="utf-8")
    base = kept["base"]
    parts = [
        "# Which repair suits which cut?",
        "",
        "Written by `python -m benchmarks repair_study`; don't edit it by hand. Numbers:",
        f"[{place.name}]({place.name}). [How repair works](repair.md) explains the methods.",
        "",
        f"The bundled model, 30 layers; perplexity of the base {base['perplexity']:.2f}",
        f"({base['low']:.2f} to {base['high']:.2f}) on {kept['tokens']:,} tokens of the project's",
        "texts to judge on, which nothing is chosen on or trained on. Figures are the share of the",
        "lost log perplexity that came back, with its 95 % interval. The best is bold.",
        "",
        f"![Recovered shares with their intervals, by cut and method]({place.stem}.svg)",
        "",
        "## Cuts",
        "",
        "`alpha`, `lstsq` and `refit` repair without training, with the defaults. *Healed* and",
        "*refit, healed* are `heal --minutes 5` without and with `--repair refit`, the base's",
        "text and the repair within the minutes.",
        "",
        *_table(cuts, ("Layers dropped", "Cut"), CUT),
        "",
        *_comparison(cuts),
        "",
        "## Repeats",
        "",
        *_table(repeats, ("Plan", "As it is"), REPEAT),
        "",
        "## Seconds",
        "",
        *_seconds(rows),
        "",
        "Measured on: " + "; ".join(sorted({cell["machine"] for cell in kept["cells"]})) + ".",
    ]
    place.with_suffix(".md").write_text("\n".join(parts) + "\n", encoding="utf-8")


def _rows(cells: list[dict]) -> dict[str, dict[str, dict]]:
    rows: dict[str, dict[str, dict]] = {}
    for cell in cells:
        rows.setdefault(cell["what"], {})[cell["method"]] = cell
    return rows


def _table(rows: dict, names: tuple[str, str], methods: tuple[str, ...]) -> list[str]:
    lines = [f"| {names[0]} | {names[1]} | " + " | ".join(methods) + " |"]
    lines.append("|---|---:|" + "---:|" * len(methods))
    for what, row in rows.items():
        shares = {m: row[m]["recovered"][0] for m in methods if m in row and row[m]["recovered"]}
        best = max(shares, key=lambda m: shares[m], default=None)
        texts = [_share(row.get(m), m == best) for m in methods]
        start = row.get("as it is")
        whole = f"{start['perplexity']:,.4g}" if start else ""
        lines.append(f"| {what} | {whole} | " + " | ".join(texts) + " |")
    return lines


def _share(cell: dict | None, best: bool) -> str:
    if cell is None:
        return ""
    if not cell["recovered"]:
        return "refused" if cell["problem"] else "nothing lost"
    share, low, high = (round(100 * value) for value in cell["recovered"])
    text = f"{share} % ({low} to {high})".replace("-", "−")
    return f"**{text}**" if best else text


def _comparison(rows: dict) -> list[str]:
    """How often healing gains by a repair before it, in a sentence."""
    both = [row for row in rows.values() if {"healed", "refit, healed"} <= row.keys()]
    shares = [(row["healed"]["recovered"], row["refit, healed"]["recovered"]) for row in both]
    known = [(a[0], b[0]) for a, b in shares if a and b]
    more = sum(b > a for a, b in known)
    mean = sum(b - a for a, b in known) / max(1, len(known))
    return [
        "In the same five minutes, healing from the refit recovers more than healing from the cut",
        f"in {more} of {len(known)} cuts, {100 * mean:.0f} percentage points more on average.",
    ]


def _seconds(rows: dict) -> list[str]:
    lines = ["| Method | Fastest | Median | Slowest |", "|---|---:|---:|---:|"]
    for method in METHODS:
        found = [row[method] for row in rows.values() if method in row]
        times = sorted(cell["seconds"] for cell in found if cell["recovered"])
        if times:
            low, middle, high = times[0], times[len(times) // 2], times[-1]
            lines.append(f"| {method} | {low:.0f} | {middle:.0f} | {high:.0f} |")
    return lines


def _figure(rows: dict) -> str:
    """Recovered shares as points with their intervals, a group of lines for each plan, as SVG."""
    y, parts = TOP, []
    for what, row in rows.items():
        cells = [(m, row[m]) for m in METHODS if m in row and row[m]["recovered"]]
        if not cells:
            continue
        middle = y + LINE * len(cells) / 2
        parts.append(f'<text x="{LEFT - 12}" y="{middle + 4:.1f}" class="r">{escape(what)}</text>')
        for method, cell in cells:
            y += LINE
            share, low, high = (_x(value) for value in cell["recovered"])
            colour, at = METHODS[method], y - LINE / 2
            parts.append(
                f'<path d="M{low:.1f} {at}H{high:.1f}" stroke="{colour}" stroke-width="2"/>'
                f'<circle cx="{share:.1f}" cy="{at}" r="4" fill="{colour}"/>'
            )
        y += 8
        parts.append(f'<path d="M12 {y - 4}H{WIDTH - 12}" stroke="#eee"/>')
    for tick in range(round(LOWEST * 100), 101, 25):
        at = _x(tick / 100)
        stroke = "#888" if tick == 0 else "#ddd"
        parts.insert(0, f'<path d="M{at:.1f} {TOP - 8}V{y}" stroke="{stroke}"/>')
        words = f"{tick} %".replace("-", "−")
        parts.append(f'<text x="{at:.1f}" y="{y + 14}" class="m">{words}</text>')
    seen = {method for row in rows.values() for method in row}
    at = 12.0
    for method, colour in METHODS.items():
        if method in seen:
            parts.append(f'<circle cx="{at + 4}" cy="34" r="4" fill="{colour}"/>')
            parts.append(f'<text x="{at + 14}" y="38">{escape(method)}</text>')
            at += 34 + 7 * len(method)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 24}" role="img">\n'
        "<title>What repairs and healing recover of the lost log perplexity</title>"
        "<style>text{font:12px system-ui,sans-serif;fill:#222}.r{text-anchor:end}"
        ".m{text-anchor:middle;fill:#666;font-size:11px}.t{font-weight:600;font-size:14px}</style>"
        f'\n<rect width="{WIDTH}" height="{y + 24}" fill="#fff"/>\n'
        '<text x="12" y="16" class="t">Recovered of the lost log perplexity, 95 % interval</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _x(share: float) -> float:
    """Where a share lies."""
    return LEFT + (max(LOWEST, share) - LOWEST) / (1 - LOWEST) * (WIDTH - LEFT - 40)
