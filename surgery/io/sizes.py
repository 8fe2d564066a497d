"""Read sizes in bytes as people write them."""

from __future__ import annotations

import math
import re

from surgery.errors import SaveError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_size(size: str | int) -> int:
    """Bytes from “5GB”, “500 MB” or a number. Raises `SaveError`."""
    m = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)B?\s*", str(size), re.I)
    value = float(m[1]) * _UNITS[m[2].upper()] if m else 0
    if not 0 < value < math.inf or int(value) < 1:
        raise SaveError(f"“{str(size)[:40]}” is not a shard size: write it as 5GB or 500MB.")
    return int(value)
