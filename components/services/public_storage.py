"""The temporary storage of a public page: all files are written into it, up to a quota.

Libraries read their folders from environment variables when they are imported, so this module
imports none of them. Of the owner's own caches only the bundled model is linked: the rest may be
gated or private.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from surgery.io.ownership import temporary

_BUNDLED = ("models--HuggingFaceTB--SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct")


class Storage:
    """A folder that is removed when the process ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._reserved: dict[object, tuple[Path, int]] = {}  # bytes reserved, by folder

    @property
    def hub(self) -> Path:
        """The folder of models from the Hub."""
        return self.folder / "hub"

    def used(self) -> int:
        """Bytes used, including reserved ones. Links are not followed."""
        reserved = list(self._reserved.values())
        rest = _bytes(self.folder, {folder for folder, _ in reserved})
        return rest + sum(max(size, _bytes(folder)) for folder, size in reserved)

    @contextmanager
    def room(self, size: int, folder: Path, quota: int, keep: Iterable[str] = ()) -> Iterator[bool]:
        """Reserve `size` bytes for `folder` while the block runs; yields False if they don't fit
        into `quota`.

        To make room, models from the Hub that nobody has open are deleted, oldest first. `keep`
        are the ids of open ones.
        """
        kept = {f"models--{name.replace('/', '--')}" for name in keep} | {folder.name}
        mine = object()
        with self._lock:
            kept |= {place.name for place, _ in self._reserved.values()}
            self._reserved[mine] = folder, size
            try:
                if not (fits := self._make_room(quota, kept)):
                    del self._reserved[mine]
            except BaseException:
                del self._reserved[mine]
                raise
        try:
            yield fits
        finally:
            with self._lock:
                self._reserved.pop(mine, None)

    def _make_room(self, quota: int, kept: Collection[str]) -> bool:
        if self.used() <= quota:
            return True
        models = [p for p in self.hub.glob("models--*") if not p.is_symlink()]
        for model in sorted(models, key=_age):
            if model.name in kept:
                continue
            shutil.rmtree(model, ignore_errors=True)
            if self.used() <= quota:
                return True
        return False


def _bytes(folder: Path, without: Collection[Path] = ()) -> int:
    """Bytes that a folder takes on disk, except the folders in `without`."""
    total = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not os.path.islink(os.path.join(place, name)) and Path(place, name) not in without
        ]
        for file in files:
            try:
                total += os.lstat(os.path.join(place, file)).st_blocks * 512
            except (OSError, AttributeError):  # deleted meanwhile; no st_blocks on Windows
                continue
    return total


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def prepare() -> Storage:
    """Create the storage and have every library write into it. Call it once in a process, before
    they are imported."""
    folder, remove = temporary("layer-surgery-")
    atexit.register(remove)
    owner_hub, owner_cache = _owner_hub(), own_cache()
    for name in ("hub", "cache", "gradio", "tmp"):
        (folder / name).mkdir()
    for owned, own in ((owner_hub, folder / "hub"), (owner_cache, folder / "cache")):
        for name in _BUNDLED:
            if (owned / name).is_dir():
                (own / name).symlink_to(owned / name, target_is_directory=True)
    os.environ.update(
        HF_HUB_CACHE=str(folder / "hub"),
        HF_HUB_DISABLE_IMPLICIT_TOKEN="1",  # the owner's token is not for strangers
        USE_HUB_KERNELS="NO",  # a config can name kernels to download
        LAYER_SURGERY_CACHE=str(folder / "cache"),
        GRADIO_TEMP_DIR=str(folder / "gradio"),
        TMPDIR=str(folder / "tmp"),
    )
    tempfile.tempdir = str(folder / "tmp")
    return Storage(folder)


def _owner_hub() -> Path:
    """The folder in which the Hub's client keeps models, by its own rules."""
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME")
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or (f"{home}/hub" if home else f"{root}/huggingface/hub")).expanduser()


def own_cache() -> Path:
    """The folder in which the library keeps converted models, by its own rules."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("LAYER_SURGERY_CACHE") or f"{root}/layer-surgery").expanduser()
