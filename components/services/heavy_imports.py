"""Import torch and transformers in the background, once the first page is drawn.

Plans need neither and are there at once; bases need both, which take seconds to import. Importing
keeps the interpreter busy, so it begins once the first page is drawn, or after a short wait.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable
from importlib import import_module

from surgery.progress import Progress, Turn, silent

_PATIENCE = 1.5  # seconds for a browser to come before the import begins without it
_HEAVY = (
    "surgery.base",
    "surgery.analysis.suggestions",
    "surgery.analysis.comparison",
    "surgery.weight_stats.cache",
)
# State of the process, not of a page: a module is imported once in a process.
_ready = threading.Event()
_drawn = threading.Event()
_importing = Turn("Starting")


def begin(then: Callable[[], None] | None = None) -> None:
    """Import the library in a thread once the first page is drawn, then call `then`."""
    threading.Thread(target=_import_later, args=(then,), daemon=True, name="library").start()


def picture_is_drawn() -> None:
    """Note that a page has drawn its first picture, so that the import may begin."""
    _drawn.set()


def is_ready() -> bool:
    """Whether the library is imported."""
    return _ready.is_set()


def wait(progress: Progress = silent) -> None:
    """Return once the library is imported. One thread imports it, others wait."""
    if _ready.is_set():
        return
    with _importing.taken(progress):
        if _ready.is_set():
            return
        # Thousands of modules are created and stay: there is no garbage to collect.
        gc.disable()
        try:
            for name in _HEAVY:
                import_module(name)
            gc.freeze()
        finally:
            gc.enable()
        _ready.set()


def share_processors(among: int) -> None:
    """Limit what this thread computes next to its share of the processors."""
    import_module("surgery.memory.devices").share_processors(among)


def _import_later(then: Callable[[], None] | None) -> None:
    _drawn.wait(_PATIENCE)
    wait()
    tidy()
    if then is not None:
        then()


def tidy() -> None:
    """Remove what killed conversions left in the model cache."""
    cache = import_module("surgery.io.cache_folder").cache_folder()
    for folder in (cache, cache / "merged"):
        with contextlib.suppress(OSError):
            import_module("surgery.io.atomic").sweep(folder)
