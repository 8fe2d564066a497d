"""How often one may ask: an allowance that fills up again, for each session and each address.

Clients choose their own session names, so each network address has an allowance too, large enough
for a room of people behind one router.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

import gradio as gr

from surgery import SurgeryError

from .client_address import Visitor, party
from .deployment import current

# A minute's worth, which may be used up at once.
PER_MINUTE = {
    "draw": 1200,  # redraws after an edit, from data that is there
    "edit": 600,
    "open": 12,
    "speak": 20,
    "save": 6,
    "count": 60,
    "measure": 12,
    "call": 60,
    "leave": 6,
}
_REMEMBERED = 10_000


class Rates:
    """Allowances of everybody who asked lately."""

    def __init__(
        self,
        per_minute: Mapping[str, int] = PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._lock = threading.Lock()
        self._left: OrderedDict[tuple, tuple[float, float]] = OrderedDict()

    def take(self, what: str, session: str | None, address: str | None, people: int = 40) -> None:
        """Use one request of the allowance; an address has that of `people` visitors. Raises
        `SurgeryError` with the time to wait."""
        most, who = self._per_minute[what], party(address)
        with self._lock:
            now = self._clock()
            # Keyed by address too: another client could use the same session name.
            wanted = [((what, who, session), most), ((what, who), most * people)]
            found = [(key, size, self._filled(key, size, now)) for key, size in wanted]
            for _, size, left in found:
                if left < 1:
                    seconds = max(1, round((1 - left) * 60 / size))
                    raise SurgeryError(f"That was a lot in a short time: wait {seconds} s.")
            for key, _, left in found:
                self._left[key] = (left - 1, now)
                self._left.move_to_end(key)
            while len(self._left) > _REMEMBERED:
                self._left.popitem(last=False)

    def _filled(self, key: tuple, size: int, now: float) -> float:
        left, then = self._left.get(key, (float(size), now))
        return min(float(size), left + (now - then) * size / 60)


_everybody = Rates()


def admit(what: str, request: gr.Request | None) -> None:
    """Count one of `what` for whoever sent the request, on a public page. Raises `SurgeryError`
    once that is too many."""
    if current().public:
        who = visitor(request)
        _everybody.take(what, who.session, who.address, current().people)


def refused(what: str, request: gr.Request | None) -> bool:
    """Like `admit`, but show the reason as a warning and return whether it was refused."""
    try:
        admit(what, request)
    except SurgeryError as error:
        gr.Warning(str(error))
        return True
    return False


def visitor(request: gr.Request | None) -> Visitor:
    """Return the sender of a request. On a public page `Guard` has set its address."""
    sender = getattr(request, "client", None)
    return Visitor(getattr(request, "session_hash", None), getattr(sender, "host", None))
