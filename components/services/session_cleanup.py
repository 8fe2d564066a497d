"""Release a session's memory when its page closes, but keep its plan for an hour.

A phone that was locked, or a train in a tunnel, looks like a closed tab. Visitors who come back in
time find the plan and its undo as they were, and are told if a healed patient is gone.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from components.gradio_compat import queue_state, session_state

MOST = 2000  # sessions in memory; those used least lately are dropped first
_STAYS = 3600.0  # seconds for which a plan is kept


class SessionCleanup:
    """Releases closed sessions, in one thread for all."""

    def __init__(self, again: float = 20.0) -> None:
        """A session is checked again after `again` seconds: an event that still runs may draw."""
        self._again = again
        self._lock = threading.Lock()
        self._left: list[tuple[float, Any, str]] = []  # time of the next check, holder, session
        self._sweeper: threading.Thread | None = None

    def release(self, holder: Any, session: str) -> None:
        """Release what a session held; values of its state with a method `release` stay for an
        hour. `holder` is Gradio's `StateHolder`."""
        session_state.forget_pictures(holder, session)
        session_state.close(holder, session)
        self._check_later(holder, session)
        session_state.forget_closed(holder, _STAYS)

    def _check_later(self, holder: Any, session: str) -> None:
        with self._lock:
            self._left.append((time.monotonic() + self._again, holder, session))
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep, daemon=True, name="leaving")
                self._sweeper.start()

    def _sweep(self) -> None:
        while True:
            time.sleep(min(1.0, self._again))
            now = time.monotonic()
            with self._lock:
                due = [one for one in self._left if one[0] <= now]
                self._left = [one for one in self._left if one[0] > now]
            for _, holder, session in due:
                session_state.forget_pictures(holder, session)
                queue = queue_state.queue_of(holder.blocks)
                if not queue_state.forget_messages(queue, session):
                    self._check_later(holder, session)
            with self._lock:
                if not self._left:
                    self._sweeper = None
                    return
