"""What is given back once a page is closed: all of it but the plan, which stays for an hour.

A phone that was locked, or a train in a tunnel, looks like a closed tab; whoever comes back in time
finds the plan and its undo as they were. Gradio keeps some 240 kB for every page that was ever
opened, pictures not counted, until ten thousand were; knows where it does so.
"""

from __future__ import annotations

import datetime
import threading
import time
from typing import Any

from .session import Session

MOST = 2000  # sessions in memory at all; those used least lately go first
_AGAIN = 20  # seconds
_left: list[tuple[float, Any, str]] = []  # (time of the next check, state holder, session)
_sweeper: threading.Thread | None = None
_lock = threading.Lock()
_STAYS = datetime.timedelta(hours=1)


def let_go(holder: Any, session: str) -> None:
    """Give back what a session held. `holder` is Gradio's `StateHolder`."""
    left = holder.session_data.get(session)
    if left is not None:
        _forget_pictures(holder, session)
        for key, value in list(left.state_data.items()):
            if not isinstance(value, Session):
                del left.state_data[key]
        left.is_closed = True
    _again_later(holder, session)
    _forget_old(holder)


def _again_later(holder: Any, session: str) -> None:
    """Check a session again later, in one thread for all: a running event may still draw."""
    global _sweeper
    with _lock:
        _left.append((time.monotonic() + _AGAIN, holder, session))
        if _sweeper is None:
            _sweeper = threading.Thread(target=_sweep, daemon=True, name="leaving")
            _sweeper.start()


def _sweep() -> None:
    global _sweeper
    while True:
        time.sleep(min(1.0, _AGAIN))
        now = time.monotonic()
        with _lock:
            due = [one for one in _left if one[0] <= now]
            _left[:] = [one for one in _left if one[0] > now]
        for _, holder, session in due:
            _forget_pictures(holder, session)
            if not _forget_messages(getattr(holder.blocks, "_queue", None), session):
                _again_later(holder, session)
        with _lock:
            if not _left:
                _sweeper = None
                return


def _forget_pictures(holder: Any, session: str) -> None:
    """What every component showed last: Gradio keeps it for links of a kind that isn't used here.
    Nothing breaks for whoever came back meanwhile."""
    left = holder.session_data.get(session)
    if left is not None:
        left.config_values = {}
        left.blocks_config.blocks = dict(holder.blocks.default_config.blocks)


def _forget_messages(queue: Any, session: str) -> bool:
    """Drop a session's undelivered messages, pictures included: Gradio keeps those of 2,000
    sessions. Returns False while one of the session's events is still running."""
    if queue is None:
        return True
    ids = queue.pending_event_ids_session.get(session, ())
    if any(event in queue.event_ids_to_events for event in list(ids)):
        return False
    queue.pending_messages_per_session.pop(session, None)
    queue.pending_event_ids_session.pop(session, None)
    return True


def _forget_old(holder: Any) -> None:
    now = datetime.datetime.now()
    for name, other in list(holder.session_data.items()):
        if other.is_closed and now - holder.time_last_used.get(name, now) > _STAYS:
            holder.session_data.pop(name, None)
            holder.time_last_used.pop(name, None)
