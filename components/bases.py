"""The bases that the page keeps open, for everyone who uses it.

Weights are shared by all sessions, so they are kept here and not in a session: the last few that
were used, fewer where memory is short.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from surgery import Base, BaseError
from surgery.lesson import BARE
from surgery.progress import Progress, silent
from surgery.source import kind_of

_KEPT = 3
_bases: OrderedDict[str, Base] = OrderedDict()
_lock = threading.Lock()


def check_allowed(spec: str, public: bool) -> None:
    """Raise `BaseError` for a place that strangers on a public page may not name."""
    if kind_of(spec) not in ("bundled", "hub") and spec != BARE and public:
        raise BaseError(
            "On a public page models come from the Hub: write org/name, or bundled. Run the app "
            "on your own machine to open folders and files."
        )


def get(spec: str, progress: Progress = silent) -> Base:
    """The base called `spec`, opened if it isn't open yet. Raises `BaseError`."""
    with _lock:
        if spec in _bases:
            _bases.move_to_end(spec)
            return _bases[spec]
    base = Base.open(spec, progress)
    with _lock:
        _bases[spec] = base
        _bases.move_to_end(spec)
        while len(_bases) > _KEPT:
            _bases.popitem(last=False)
    return base


def load(spec: str, progress: Progress) -> Base:
    """The base with its weights in memory; others are let go if that makes the room. Raises
    `BaseError`."""
    base = get(spec, progress)
    try:
        base.load(progress)
    except BaseError:
        with _lock:
            for other in [name for name in _bases if _bases[name] is not base]:
                del _bases[other]
        base.load(progress)
    return base
