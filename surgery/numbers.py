"""How numbers are written for people: one format for the command line, its reports and the page.

Thousands have separators, never an exponent: 48,910 and not 4.891e+04. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def number(value: float | None, digits: int = 4) -> str:
    """`digits` significant digits, and all digits before the point: 0.0313, 9.898, 48,910.
    Nothing for None."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if not value:
        return "0"
    rounded = float(f"{value:.{digits}g}")  # 999.96 is 1,000, so it has a place more
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:,.{min(max(0, decimals), 12)}f}"


def plain(value: float) -> str:
    """A bound or default as a person would write it: 1e-9, 0.0005, 4,096, 1,000,000,000."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.4f}".rstrip("0") if abs(value) >= 1e-4 else f"{value:g}".replace("e-0", "e-")


def scaled(value: float, unit: str, digits: int = 3) -> str:
    """A quantity with an SI prefix: 3.47 GFLOPs, 135 MB, 28.3 M."""
    rounded = abs(float(f"{value:.{digits}g}"))  # 999,999 is 1.00 M
    power = math.floor(math.log10(rounded) / 3) if rounded >= 1 else 0
    power = min(power, len(_PREFIXES) - 1)
    return f"{number(value / 1000**power, digits)} {_PREFIXES[power]}{unit}".rstrip()


def perplexity(value: float | None) -> str:
    """Two decimals below a thousand, then whole numbers: 16.43, 217,924, ∞."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "∞"
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """8.5 s, 12.5 min, 9.9 h, 2,308 days."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size * (3 if unit == "days" else 1):
            return f"{number(seconds / size, 3)} {unit}"
    return f"{number(seconds, 2)} s"


def percent(share: float, digits: int = 0) -> str:
    """A share in percent: 36 %."""
    return f"{100 * share:.{digits}f} %"


def change(old: float | None, new: float | None) -> str:
    """The change in percent, with its sign; nothing if there is none: -13.3 %."""
    if not old or new is None or old == new:
        return ""
    return f"{100 * (new - old) / old:+,.1f} %"


def about(count: int) -> int:
    """A count to two significant digits: 6,371 is about 6,400."""
    return round(count, 2 - len(str(count)))


def listed(words: Sequence[str], last: str = "or") -> str:
    """a, b or c."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
