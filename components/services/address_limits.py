"""Limits for each network address on a public page: open requests, queued events, sessions.

Clients choose their own session names, so limits per session alone are no protection. An address
may be a room of people behind one router, so its limits are those of that many people.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.gradio_compat import queue_state, session_state
from surgery import SurgeryError

from .client_address import party

# Per person. A page keeps two connections open, and browsers use six.
_REQUESTS, _PLACES, _SESSIONS = 8, 2, 5
_OF_SESSION = 24  # places in the queue
_EMPTY = 5  # seconds until a session without state is dropped; API calls create them
_NEW = 60  # seconds that an admitted session has to start


class Shares:
    """Current use, by network address."""

    def __init__(self, people: int) -> None:
        """`people` may share an address."""
        self._people = people
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._sessions: dict[str, tuple[str, float]] = {}  # name: (address, since)
        self._swept = 0.0

    @contextmanager
    def request(self, address: str) -> Iterator[None]:
        """Count a request while the block runs. Raises `SurgeryError` if there are too many."""
        who = party(address)
        with self._lock:
            if self._open[who] >= _REQUESTS * self._people:
                raise SurgeryError(
                    "Too many open connections from your network address. Close some pages."
                )
            self._open[who] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[who] -= 1
                if not self._open[who]:
                    del self._open[who]

    def session(self, holder: Any, address: str, name: str | None) -> None:
        """Admit a session, or a call without one (`name` is None). `holder` is Gradio's
        `StateHolder`. If the address has too many sessions, its oldest closed one is dropped.
        Raises `SurgeryError` if all of them are open."""
        who, now = party(address), time.monotonic()
        with self._lock:
            if name in self._sessions:
                return
            if now - self._swept > 1:
                self._swept = now
                session_state.forget_empty(holder, _EMPTY)
            if name is None:
                return
            self._sessions = {
                other: (whose, since)
                for other, (whose, since) in self._sessions.items()
                if session_state.is_known(holder, other) or now - since < _NEW
            }
            mine = [other for other, (whose, _) in self._sessions.items() if whose == who]
            if len(mine) >= _SESSIONS * self._people:
                old = next((o for o in mine if session_state.is_closed(holder, o)), None)
                if old is None:
                    raise SurgeryError(
                        "Too many pages are open from your network address. Close some."
                    )
                session_state.drop(holder, old)
                del self._sessions[old]
            self._sessions[name] = (who, now)

    def place(self, queue: Any, address: str, session: str | None) -> None:
        """Raise `SurgeryError` if the address or the session has reached its limit of queued and
        running events. `queue` is Gradio's `Queue`."""
        who = party(address)
        mine = [whose for host, whose in queue_state.senders(queue) if party(host) == who]
        if len(mine) >= _PLACES * self._people:
            raise SurgeryError(
                "Too many requests from your network address are waiting. Try again soon."
            )
        if session and mine.count(session) >= _OF_SESSION:
            raise SurgeryError(
                "Too many of your requests are waiting. Let some of them finish first."
            )
