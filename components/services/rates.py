"""Rate limits: an allowance that refills, for each session and each network address.

Clients choose their own session names, so each network address has an allowance too, large enough
for a room of people behind one router.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from surgery import SurgeryError

from .client_address import party

# Requests per minute, which may be used up at once.
PER_MINUTE = {
    "draw": 1200,  # redraws after an edit, from data that is there
    "edit": 600,
    "open": 12,
    "speak": 20,
    "save": 6,
    "count": 60,
    "measure": 12,
    "quality": 400,  # plans that were edited; one is measured at a time
    "call": 60,
    "leave": 6,
}
_REMEMBERED = 10_000


class Rates:
    """The allowances of recent clients."""

    def __init__(
        self,
        per_minute: Mapping[str, int] = PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._lock = threading.Lock()
        self._left: OrderedDict[tuple, tuple[float, float]] = OrderedDict()

    def take(self, what: str, session: str | None, address: str | None, people: int = 40) -> None:
        """Count one request of a session. An address has the allowance of `people` sessions.
        Raises `SurgeryError`, with the time to wait, if it is used up."""
        most, who = self._per_minute[what], party(address)
        with self._lock:
            now = self._clock()
            # Keyed by address too: another client could use the same session name.
            wanted = [((what, who, session), most), ((what, who), most * people)]
            allowances = [(key, size, self._filled(key, size, now)) for key, size in wanted]
            for _, size, left in allowances:
                if left < 1:
                    seconds = max(1, round((1 - left) * 60 / size))
                    raise SurgeryError(f"Too many requests: wait {seconds} s.")
            for key, _, left in allowances:
                self._left[key] = (left - 1, now)
                self._left.move_to_end(key)
            while len(self._left) > _REMEMBERED:
                self._left.popitem(last=False)

    def _filled(self, key: tuple, size: int, now: float) -> float:
        left, then = self._left.get(key, (float(size), now))
        return min(float(size), left + (now - then) * size / 60)
