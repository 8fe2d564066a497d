"""What one address may hold of a public page at once: open requests, places in the queue, sessions.

Clients choose the names of their sessions, so bounds for a session alone bound nobody. An address
may be a room of people behind one router, so it has the shares of that many. Knows where Gradio
keeps sessions and events.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from surgery import SurgeryError

from .address import party

# Of each person: a page keeps two connections open, and browsers use six.
_REQUESTS, _PLACES, _SESSIONS = 8, 2, 5
_OF_SESSION = 24  # places in the queue
_EMPTY = 5  # seconds for which a session without a value is kept: calls of programs make them
_NEW = 60  # seconds for a session that was let in to begin


class Shares:
    """What is held now, by address."""

    def __init__(self, people: int) -> None:
        """`people` may share an address."""
        self._people = people
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._sessions: dict[str, tuple[str, float]] = {}  # name: whose, since when
        self._swept = 0.0

    @contextmanager
    def request(self, address: str) -> Iterator[None]:
        """Within, a request of the address is answered. Raises `SurgeryError` for too many."""
        who = party(address)
        with self._lock:
            if self._open[who] >= _REQUESTS * self._people:
                raise SurgeryError("Too many connections from your address: close some pages.")
            self._open[who] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[who] -= 1
                if not self._open[who]:
                    del self._open[who]

    def session(self, holder: Any, address: str, name: str | None) -> None:
        """Let a session in, or a call that names none: Gradio makes one for it. `holder` is
        Gradio's `StateHolder`. Where the address has too many, its oldest closed one goes. Raises
        `SurgeryError` if all of them are open."""
        who, now = party(address), time.monotonic()
        with self._lock:
            if name in self._sessions:
                return
            if now - self._swept > 1:
                self._swept = now
                _forget_empty(holder)
            if name is None:
                return
            self._sessions = {
                other: (whose, since)
                for other, (whose, since) in self._sessions.items()
                if other in holder.session_data or now - since < _NEW
            }
            mine = [other for other, (whose, _) in self._sessions.items() if whose == who]
            if len(mine) >= _SESSIONS * self._people:
                closed = (o for o in mine if o in holder.session_data)
                old = next((o for o in closed if holder.session_data[o].is_closed), None)
                if old is None:
                    raise SurgeryError("Too many pages are open at your address: close some.")
                _drop(holder, old)
                del self._sessions[old]
            self._sessions[name] = (who, now)

    def place(self, queue: Any, address: str, session: str | None) -> None:
        """Raise `SurgeryError` if an address or a session has as many events under way as it may.
        `queue` is Gradio's `Queue`."""
        who = party(address)
        events = [
            event for one in queue.event_queue_per_concurrency_id.values() for event in one.queue
        ]
        events += [event for job in queue.active_jobs if job for event in job]
        mine = [e for e in events if party(getattr(e.request.client, "host", None)) == who]
        if len(mine) >= _PLACES * self._people:
            raise SurgeryError("Too many requests from your address are waiting: try again soon.")
        if session and sum(e.session_hash == session for e in mine) >= _OF_SESSION:
            raise SurgeryError("Too many of your requests are waiting: let some of them end first.")


def _forget_empty(holder: Any) -> None:
    """Sessions in which nothing is kept: whoever comes back finds them as they were."""
    for name, left in list(holder.session_data.items()):
        used = holder.time_last_used.get(name)
        if not left.state_data and used and time.time() - used.timestamp() > _EMPTY:
            _drop(holder, name)


def _drop(holder: Any, name: str) -> None:
    holder.session_data.pop(name, None)
    holder.time_last_used.pop(name, None)
