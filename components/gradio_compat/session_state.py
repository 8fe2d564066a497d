"""What Gradio keeps in memory for each page that was opened, and how to release it.

Gradio 6.31 keeps a session's components, about 240 kB without pictures, until 10,000 sessions were
opened, and a closed session for an hour. `holder` is its `StateHolder`, the app's `state_holder`.
This can go once Gradio releases closed sessions by itself.
"""

from __future__ import annotations

import time
from typing import Any


def is_known(holder: Any, session: str) -> bool:
    """Whether Gradio keeps anything for the session."""
    return session in holder.session_data


def is_closed(holder: Any, session: str) -> bool:
    """Whether the session's page was closed."""
    return session in holder.session_data and holder.session_data[session].is_closed


def close(holder: Any, session: str) -> None:
    """Mark a session as closed. Of its state, values with a method `release` are told to release
    their memory, and stay; the others are dropped."""
    state = holder.session_data.get(session)
    if state is not None:
        for key, value in list(state.state_data.items()):
            if release := getattr(value, "release", None):
                release()
            else:
                del state.state_data[key]
        state.is_closed = True


def forget_pictures(holder: Any, session: str) -> None:
    """Drop what every component showed last, which Gradio keeps for its own kind of links. The
    page keeps working."""
    state = holder.session_data.get(session)
    if state is not None:
        state.config_values = {}
        state.blocks_config.blocks = dict(holder.blocks.default_config.blocks)


def forget_closed(holder: Any, seconds: float) -> None:
    """Drop closed sessions that were not used for so long."""
    for name, state in list(holder.session_data.items()):
        if state.is_closed and _unused(holder, name) > seconds:
            drop(holder, name)


def forget_empty(holder: Any, seconds: float) -> None:
    """Drop sessions without state that were not used for so long. Nothing is lost when their
    visitors come back."""
    for name, state in list(holder.session_data.items()):
        if not state.state_data and _unused(holder, name) > seconds:
            drop(holder, name)


def drop(holder: Any, session: str) -> None:
    """Drop all that is kept for a session."""
    holder.session_data.pop(session, None)
    holder.time_last_used.pop(session, None)


def _unused(holder: Any, session: str) -> float:
    """Seconds since the session was used; 0 if it was not used yet."""
    used = holder.time_last_used.get(session)
    return time.time() - used.timestamp() if used else 0.0
