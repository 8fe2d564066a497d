"""What is given back once a page is closed: all of it but the plan, which stays for an hour.

A phone that was locked, or a train in a tunnel, looks like a closed tab; whoever comes back in time
finds the plan and its undo as they were. Gradio keeps some 240 kB for every page that was ever
opened, pictures not counted, until ten thousand were; knows where it does so.
"""

from __future__ import annotations

import datetime
import threading
from typing import Any

from .session import Session

MOST = 2000  # sessions in memory at all; those used least lately go first
_AGAIN = 20  # seconds
_STAYS = datetime.timedelta(hours=1)


def let_go(holder: Any, session: str) -> None:
    """Give back what a session held. `holder` is Gradio's `StateHolder`."""
    left = holder.session_data.get(session)
    if left is not None:
        _forget_pictures(holder, session)
        # An event that was under way may draw once more.
        again = threading.Timer(_AGAIN, _forget_pictures, (holder, session))
        again.daemon = True
        again.start()
        for key, value in list(left.state_data.items()):
            if not isinstance(value, Session):
                del left.state_data[key]
        left.is_closed = True
    _forget_old(holder)


def _forget_pictures(holder: Any, session: str) -> None:
    """What every component showed last: Gradio keeps it for links of a kind that isn't used here.
    Nothing breaks for whoever came back meanwhile."""
    left = holder.session_data.get(session)
    if left is not None:
        left.config_values = {}
        left.blocks_config.blocks = dict(holder.blocks.default_config.blocks)


def _forget_old(holder: Any) -> None:
    now = datetime.datetime.now()
    for name, other in list(holder.session_data.items()):
        if other.is_closed and now - holder.time_last_used.get(name, now) > _STAYS:
            holder.session_data.pop(name, None)
            holder.time_last_used.pop(name, None)
