"""Ctrl-C and SIGTERM stop a command, also when they arrive where Python can't pass them on.

A handler's `KeyboardInterrupt` is lost if it arises in a destructor or in the callback of a weak
reference, whose errors Python prints and drops. Commands that report progress stop at their next
report then.
"""

from __future__ import annotations

import signal
from types import FrameType

_pending = False


def handle() -> None:
    """Handle both signals from now on. Ctrl-C stays ignored where it is, as in the background of a
    script."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
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
