"""The colours of layers and lines: computed here, and sent to the browser with what it draws.

A layer's colour says how deep it is. Lightness rises with depth, so the order survives colour
blindness.
"""

from __future__ import annotations

import math
from functools import cache

# Lines in figures; from Okabe and Ito's palette for colour-blind readers.
BASE, PATIENT, NORMAL, HEALED = "#56b4e9", "#e69f00", "#cc79a7", "#009e73"

# What became of a skill; “weaker” is the colour of the patient.
LOST, WEAKER, KEPT, GAINED = "#d55e00", PATIENT, "#0072b2", HEALED


@cache
def layer_colour(source: int, depth: int) -> str:
    """The colour of a layer of the base, as #rrggbb."""
    t = source / (depth - 1) if depth > 1 else 0.0
    hue = math.radians(272 - 212 * t)
    return _hex(0.66 + 0.18 * t, 0.13 * math.cos(hue), 0.13 * math.sin(hue))


def _hex(lightness: float, a: float, b: float) -> str:
    """OKLab to sRGB (Ottosson 2020)."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(1.0, max(0.0, x)))):02x}" for x in linear)


def _gamma(x: float) -> float:
    return 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055
