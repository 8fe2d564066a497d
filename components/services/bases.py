"""The bases that the page keeps open, shared by all of its visitors.

Weights are kept here and not in a session, as many as fit into a budget of memory. Those that were
used least lately are unloaded first, and never any that is in use.
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
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import surgery
from surgery import BaseError, Plan, SurgeryError, known_base
from surgery.memory.devices import main_memory
from surgery.progress import Cancelled, Progress, Turn, reporting_to, silent

from . import heavy_imports
from .deployment import Deployment
from .public_storage import Storage
from .shared_work import SharedWork, at_most

if TYPE_CHECKING:
    from surgery import Base
    from surgery.known_base import KnownBase

_SILENT = 30.0  # seconds that callers without progress wait for a base to open
_SHARE = 0.6  # of the memory that is free or taken by bases: the budget for weights


class Named(Protocol):
    """What works with a base that it has shown: its name as in `Base.open`, and the identity of its
    files; an empty one stands for any."""

    @property
    def spec(self) -> str: ...

    @property
    def identity(self) -> str: ...


class Shown(NamedTuple):
    """The base that a page shows."""

    spec: str
    identity: str


B = TypeVar("B", "Base", "KnownBase")


def check_same(base: B, identity: str) -> B:
    """The base, if its files are those of this identity. They may have changed, and another page
    may have opened it again: then this raises `BaseError`."""
    if identity and base.identity != identity:
        raise BaseError(
            f"The files of {base.name} have changed since this page opened it: open it again."
        )
    return base


class Bases:
    """Open bases by name, within the limits of a deployment and its storage."""

    def __init__(
        self,
        deployment: Deployment | None = None,
        storage: Storage | None = None,
        *,
        most: int = 12,
        longest: float = 60.0,
        linger: float = 20.0,
    ) -> None:
        """`most` are kept open: without weights they take little. `longest` is the limit, in
        seconds, for building a model on a public page. A base that nobody waits for any more is
        opened for `linger` seconds longer."""
        self.deployment, self.storage = deployment or Deployment(), storage
        self.longest = longest
        self.shared = SharedWork(linger)
        self._most = most
        self._bases: OrderedDict[str, Base] = OrderedDict()
        self._expected: dict[str, KnownBase] = {}
        self._used: Counter[int] = Counter()  # by the object's id
        self._lock = threading.Lock()
        self._loading = Turn("Waiting for another model to load")

    @property
    def names(self) -> list[str]:
        """Names of the open bases, the one used least lately first."""
        return list(self._bases)

    @property
    def used(self) -> int:
        """How many bases are in use."""
        return len(self._used)

    def get(self, of: str | Named, progress: Progress | None = None) -> Base:
        """Return the base that `of` names, opening it if needed. Concurrent callers share one
        opening.

        Raises `BaseError`, also if its files have changed since `of` showed it, if the deployment
        does not allow the base, or if a caller without a progress function would wait for more than
        `_SILENT` seconds.
        """
        if not isinstance(of, str):
            return check_same(self.get(of.spec, progress), of.identity)
        spec = of
        with self._lock:
            if (base := self._bases.get(spec)) is not None:
                self._bases.move_to_end(spec)
                return base
        self.deployment.check_spec(spec)
        progress = progress or at_most(_SILENT)
        return self.shared.run(("open", spec), partial(self._open, spec), progress)

    def refresh(self, spec: str) -> None:
        """Close the base called `spec` if its files have changed since it was opened, so that `get`
        opens it again. Call it where a base is opened by name, not where a page works with the base
        that it shows: the page's plan belongs to the base as it was, and an error asks to open it
        again.
        """
        base = self._bases.get(spec)
        if base is not None and base.source.has_changed:
            with self._lock:
                if self._bases.get(spec) is base:  # nobody else has opened it again
                    del self._bases[spec]

    def expect(self, spec: str) -> KnownBase | None:
        """What is remembered of a base that is about to be opened. None on a public page, which
        keeps nothing."""
        if self.deployment.public:
            return None
        known = known_base.recall(spec, unconfirmed=True)
        with self._lock:
            if known and spec not in self._bases:
                self._expected[spec] = known
        return known

    def numbers(self, of: str | Named) -> Base | KnownBase:
        """Return the base that `of` names for its numbers alone: as it is remembered until an
        expected one is open, else as `get` does."""
        spec = of if isinstance(of, str) else of.spec
        with self._lock:
            known = None if spec in self._bases else self._expected.get(spec)
        if known is None:
            return self.get(of)
        return known if isinstance(of, str) else check_same(known, of.identity)

    def prepare(self, spec: str) -> None:
        """Open a base at startup, without a visitor. Errors are ignored here: opening the base
        again retries, and reports them."""
        with suppress(SurgeryError):
            self.deployment.check_spec(spec)
            self.shared.run(("open", spec), partial(self._open, spec), silent, lasting=True)

    def _open(self, spec: str, progress: Progress) -> Base:
        """Open a base and compute everything that the page needs of it, with progress."""
        heavy_imports.wait(progress)
        base = surgery.Base.open(spec, progress, from_disk=self.deployment.from_disk)
        if self.deployment.public:
            self.deployment.check_config(base.source.config.to_dict())
        progress("Building the layers", 0, 0)
        with self._limited(progress) as limited, reporting_to(limited):
            size = base.preview(Plan.whole(base.depth)).bytes
        if self.deployment.public:
            self.deployment.check_size(size)
        progress("Reading the tokenizer", 0, 0)
        base.has_tokenizer  # noqa: B018  a GGUF file is converted for it
        base.compute_dtype  # noqa: B018  this machine may be measured for it
        if not self.deployment.public:
            known_base.remember(spec, base)
        with self._lock:
            self._bases[spec] = base
            self._bases.move_to_end(spec)
            self._expected.pop(spec, None)
            idle = [name for name in self._bases if not self._is_used(name) and name != spec]
            for name in idle[: max(0, len(self._bases) - self._most)]:
                del self._bases[name]
        return base

    def load(self, of: str | Named, progress: Progress) -> Base:
        """Return the base with its weights in memory, unloading others to make room. Concurrent
        callers share one load. Raises `BaseError` as `get` does."""
        base = self.get(of, progress)
        if base.is_loaded:
            return base
        spec = of if isinstance(of, str) else of.spec
        return self.shared.run(("load", spec), partial(self._load, base), progress)

    def _load(self, base: Base, progress: Progress) -> Base:
        size = base.memory_bytes
        self.deployment.check_size(size, "In memory the model's weights")
        self.fetch(base, progress)
        random = base.kind == "config"
        # One at a time: memory that another load is about to use still counts as free.
        with (
            self._loading.taken(progress) as report,
            self._limited(report) if random else nullcontext(report) as limited,
        ):
            self._unload(base, size, self.budget())
            try:
                base.load(limited)
            except BaseError:
                if not self._unload(base, size, 0):
                    raise
                base.load(limited)
        return base

    def fetch(self, base: Base, progress: Progress) -> None:
        """Download the base's files if needed. Raises `BaseError`, also if there is no disk
        space."""
        if base.kind == "hub":
            name = f"models--{base.source.hub_id.replace('/', '--')}"
            folder = self.storage.hub / name if self.storage else Path()
            with self.disk_room(base.preview(Plan.whole(base.depth)).bytes, folder):
                base.source.fetch(progress)
        elif base.kind != "config":
            base.source.fetch(progress)

    @contextmanager
    def _limited(self, progress: Progress) -> Iterator[Progress]:
        """Limit the computing time inside the block on a public page, since the cost of a visitor's
        config isn't known in advance. Raises `BaseError`."""
        if not self.deployment.public:
            yield progress
            return
        end = time.monotonic() + self.longest

        def limited(what: str, done: float, total: float) -> None:
            if time.monotonic() > end:
                raise _TooLong
            progress(what, done, total)

        try:
            yield limited
        except _TooLong:
            raise BaseError(
                "Building this model takes longer than this public page allows. Choose one with "
                "fewer layers, or run the app on your own machine."
            ) from None

    @contextmanager
    def in_use(self, base: Base) -> Iterator[Base]:
        """Keep the base's weights in memory while the block runs."""
        with self._lock:
            self._used[id(base)] += 1
        try:
            yield base
        finally:
            with self._lock:
                self._used[id(base)] -= 1
                if not self._used[id(base)]:
                    del self._used[id(base)]

    def loaded_bytes(self) -> int:
        """Bytes of memory that the weights of all open bases take now."""
        with self._lock:
            return sum(base.memory_bytes for base in set(self._bases.values()) if base.is_loaded)

    def budget(self) -> int:
        """Bytes that the weights of open bases may take together, on this machine as it is now."""
        return int(_SHARE * (main_memory().free + self.loaded_bytes()))

    @contextmanager
    def disk_room(self, size: int, folder: Path) -> Iterator[None]:
        """Reserve `size` bytes for a folder in a public page's storage while the block runs. Raises
        `BaseError` if they don't fit."""
        quota = self.deployment.max_disk_bytes
        if self.storage is None or quota is None:
            yield
            return
        with self._lock:
            ids = [base.source.hub_id for base in self._bases.values() if base.source.hub_id]
        with self.storage.room(size, folder, quota, ids) as fits:
            if not fits:
                raise BaseError(
                    "This public page has not enough disk space left for this model. Choose a "
                    "smaller model, or try again in a few minutes."
                )
            yield

    def _unload(self, wanted: Base, size: int, limit: int) -> bool:
        """Drop loaded bases that are not in use until `size` more bytes fit the limit. Returns
        whether any was dropped."""
        gone = False
        with self._lock:
            loaded = [n for n, base in self._bases.items() if base.is_loaded and base is not wanted]
            for name in loaded:
                taken = sum(b.memory_bytes for b in self._bases.values() if b.is_loaded)
                if size + taken <= limit:
                    break
                if not self._is_used(name):
                    del self._bases[name]
                    gone = True
        if gone:
            gc.collect()  # models refer to themselves in circles
        return gone

    def _is_used(self, name: str) -> bool:
        return id(self._bases[name]) in self._used


class _TooLong(Cancelled):
    """Raised to stop work that exceeds the time limit of a public page."""
