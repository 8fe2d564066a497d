"""The bases that the page keeps open, for everyone who uses it.

Weights are shared by all sessions, so they are kept here and not in a session: as many as fit into
a budget of memory. Those that were used least lately go first, and never one that is in use. What
strangers may open is the deployment's to say.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import surgery
from surgery import BaseError, Plan, SurgeryError
from surgery.devices import main_memory
from surgery.progress import Cancelled, Progress, Turn, reporting_to, silent

from . import deployment, heavy_imports, public_storage, shared_work

if TYPE_CHECKING:
    from surgery import Base

_KEPT = 12  # open ones; without weights they take little
_SILENT = 30.0  # seconds that callers without progress wait for a base to open
_LONGEST = 60.0  # seconds: limit for building a model on a public page
_SHARE = 0.6  # of the memory that is free or taken by bases: the budget for weights
_bases: OrderedDict[str, Base] = OrderedDict()
_used: Counter[int] = Counter()  # by the object's id
_lock = threading.Lock()
_loading = Turn("Waiting for another model to load")


def get(spec: str, progress: Progress | None = None) -> Base:
    """Return the base called `spec`, opening it if needed. Concurrent callers share one opening.

    Raises `BaseError`, also if the deployment does not allow the base, or if a caller without a
    progress function would wait for more than `_SILENT` seconds.
    """
    with _lock:
        if spec in _bases:
            _bases.move_to_end(spec)
            return _bases[spec]
    deployment.current().check_spec(spec)
    progress = progress or shared_work.at_most(_SILENT)
    return shared_work.shared(("open", spec), partial(_open, spec), progress)


def prepare(spec: str) -> None:
    """Open a base at startup, without a visitor. Errors are ignored here: opening the base again
    retries, and reports them."""
    with suppress(SurgeryError):
        deployment.current().check_spec(spec)
        shared_work.shared(("open", spec), partial(_open, spec), silent, lasting=True)


def _open(spec: str, progress: Progress) -> Base:
    """Open a base and compute everything that the page needs of it, with progress."""
    allowed = deployment.current()
    heavy_imports.wait(progress)
    base = surgery.Base.open(spec, progress)
    if allowed.public:
        allowed.check_config(base.source.config.to_dict())
    progress("Building the layers", 0, 0)
    with _limited(progress) as limited, reporting_to(limited):
        size = base.preview(Plan.whole(base.depth)).bytes
    if allowed.public:
        allowed.check_size(size)
    progress("Reading the tokenizer", 0, 0)
    base.has_tokenizer  # noqa: B018  a GGUF file is converted for it
    with _lock:
        _bases[spec] = base
        _bases.move_to_end(spec)
        idle = [name for name in _bases if not _in_use(name) and name != spec]
        for name in idle[: max(0, len(_bases) - _KEPT)]:
            del _bases[name]
    return base


def load(spec: str, progress: Progress) -> Base:
    """Return the base with its weights in memory, unloading others to make room. Concurrent
    callers share one load. Raises `BaseError`."""
    base = get(spec, progress)
    if base.is_loaded:
        return base
    return shared_work.shared(("load", spec), partial(_load, base), progress)


def _load(base: Base, progress: Progress) -> Base:
    size = weight_bytes(base)
    deployment.current().check_size(size, "In memory the model's weights")
    fetch(base, progress)
    random = base.kind == "config"
    # One at a time: memory that another load is about to use still counts as free.
    with (
        _loading.taken(progress) as report,
        _limited(report) if random else nullcontext(report) as limited,
    ):
        _let_go(base, size, budget())
        try:
            base.load(limited)
        except BaseError:
            if not _let_go(base, size, 0):
                raise
            base.load(limited)
    return base


def fetch(base: Base, progress: Progress) -> None:
    """Download the base's files if needed. Raises `BaseError`, also if there is no disk space."""
    if base.kind == "hub":
        here = public_storage.current()
        folder = here.hub / f"models--{base.source.hub_id.replace('/', '--')}" if here else Path()
        with disk_room(base.preview(Plan.whole(base.depth)).bytes, folder):
            base.source.fetch(progress)
    elif base.kind != "config":
        base.source.fetch(progress)


class _TooLong(Cancelled):
    """Raised to stop work that exceeds the time limit of a public page."""


@contextmanager
def _limited(progress: Progress) -> Iterator[Progress]:
    """Limit the computing time inside the block on a public page, since the cost of a visitor's
    config isn't known in advance. Raises `BaseError`."""
    if not deployment.current().public:
        yield progress
        return
    end = time.monotonic() + _LONGEST

    def limited(what: str, done: float, total: float) -> None:
        if time.monotonic() > end:
            raise _TooLong
        progress(what, done, total)

    try:
        yield limited
    except _TooLong:
        raise BaseError(
            "Building this model takes longer than this public page allows. Choose one with fewer "
            "layers, or run the app on your own machine."
        ) from None


@contextmanager
def in_use(base: Base) -> Iterator[Base]:
    """Within, its weights are not let go to make room for others."""
    with _lock:
        _used[id(base)] += 1
    try:
        yield base
    finally:
        with _lock:
            _used[id(base)] -= 1
            if not _used[id(base)]:
                del _used[id(base)]


def weight_bytes(base: Base) -> int:
    """What its weights take in memory."""
    return base.counts.total * base.torch_dtype.itemsize


def loaded_bytes() -> int:
    """What the weights of all open bases take now."""
    with _lock:
        return sum(weight_bytes(base) for base in set(_bases.values()) if base.is_loaded)


def budget() -> int:
    """Bytes that the weights of open bases may take together, on this machine as it is now."""
    return int(_SHARE * (main_memory().free + loaded_bytes()))


@contextmanager
def disk_room(size: int, folder: Path) -> Iterator[None]:
    """Reserve `size` bytes for a folder in a public page's storage while the block runs. Raises
    `BaseError` if they don't fit."""
    here, quota = public_storage.current(), deployment.current().max_disk_bytes
    if here is None or quota is None:
        yield
        return
    with _lock:
        open_ones = [base.source.hub_id for base in _bases.values() if base.source.hub_id]
    with here.room(size, folder, quota, open_ones) as fits:
        if not fits:
            raise BaseError(
                "This public page has not enough disk space left for this model. Choose a smaller "
                "model, or try again in a few minutes."
            )
        yield


def _let_go(wanted: Base, size: int, limit: int) -> bool:
    """Let go of loaded bases that nobody uses until `size` more bytes fit the limit; whether any
    was."""
    gone = False
    with _lock:
        loaded = [name for name, base in _bases.items() if base.is_loaded and base is not wanted]
        for name in loaded:
            if size + sum(weight_bytes(b) for b in _bases.values() if b.is_loaded) <= limit:
                break
            if not _in_use(name):
                del _bases[name]
                gone = True
    if gone:
        gc.collect()  # models hold on to themselves in circles
    return gone


def _in_use(name: str) -> bool:
    return _used[id(_bases[name])] > 0 if id(_bases[name]) in _used else False
