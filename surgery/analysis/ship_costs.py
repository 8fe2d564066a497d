"""Measure the drop-one costs of the bundled model, and write them into the package.

python -m surgery.analysis.ship_costs
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json

from surgery import __version__, texts
from surgery.base import Base
from surgery.progress import Progress, silent
from surgery.sources.bundled import HUB_ID
from surgery.sources.fingerprint import fingerprint

from .layer_costs import SHIPPED, measured_costs
from .layer_scan import scan
from .sample import Sample

_DIGITS = 4  # after the point: far below the intervals


def record(base: Base, text: str = texts.DEFAULT, progress: Progress = silent) -> dict:
    """Measure a base's costs on one of the project's texts, with all that identifies them."""
    sample = Sample.of(base, texts.get(text))
    scan(base, sample, scores=("drop_one",), progress=progress)
    found = measured_costs(base, text)
    assert found
    return {
        "model": HUB_ID,
        "note": base.note,
        "fingerprint": fingerprint(base.source, progress),
        "text": text,
        "tokens": found.tokens,
        "computed_in": base.compute_dtype,
        "versions": {
            "layer-surgery": __version__,
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
        "date": datetime.date.today().isoformat(),
        "costs": [cost and round(cost, _DIGITS) for cost in found.costs],
    }


if __name__ == "__main__":
    values = record(Base.open("bundled"))
    SHIPPED.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(f"{SHIPPED.name}: {values['tokens']} tokens, {len(values['costs'])} layers")
