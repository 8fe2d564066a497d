"""JSON that every parser reads: null in place of NaN and infinities, which JSON doesn't have.

Whatever is written for users goes through here. Perplexities are infinite where a patient's output
isn't finite, and `json.dumps` would write `Infinity`.
"""

from __future__ import annotations

import json
import math
from typing import Any


def plain(value: Any) -> Any:
    """The value with None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, *, sort_keys: bool = False) -> str:
    """The value as indented JSON that ends with a line break."""
    return json.dumps(plain(value), indent=2, sort_keys=sort_keys, allow_nan=False) + "\n"
