"""Ctrl-C, SIGTERM and a closed terminal stop a command, also where Python can't pass them on.

A handler's `KeyboardInterrupt` is lost if it arises in a destructor or in the callback of a weak
reference, whose errors Python prints and drops. Commands that report progress stop at their next
report then.
"""

from __future__ import annotations

import signal
from types import FrameType

_pending = False


def handle() -> None:
    """Handle these signals from now on. Those that are ignored stay so: Ctrl-C in the background of
    a script, and a closed terminal under nohup."""
    for name in ("SIGINT", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def check() -> None:
    """Raise `KeyboardInterrupt` if a signal came since the last call."""
    global _pending
    if _pending:
        _pending = False
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _pending
    _pending = True
    raise KeyboardInterrupt
