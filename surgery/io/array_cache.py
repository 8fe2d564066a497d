"""Keep NumPy arrays on disk between runs, in groups, one file per entry."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np

from .cache_file import whole_file
from .cache_folder import short_hash


class ArrayCache:
    """Entries of named arrays in `folder`: the last `groups` groups that something was added to.

    Files are written atomically, so any number of processes can add to them. An entry that can't
    be read, or that was written under another `version`, counts as absent; one that can't be
    written is dropped. Callers compute such entries again.
    """

    def __init__(self, folder: Path, groups: int, version: int) -> None:
        self.folder, self.groups, self.version = folder, groups, version

    def get(self, group: str, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of an entry, or None. `name` has to be a valid file name; `group` is free."""
        try:
            content = (self._folder(group) / f"{name}.npz").read_bytes()
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                return dict(file)
        except Exception:  # absent, cut off, not an archive: NumPy raises many kinds of errors
            return None

    def put(self, group: str, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write an entry, and delete the oldest groups beyond the limit when a group is new."""
        folder = self._folder(group)
        try:
            new = not folder.is_dir()
            with whole_file(folder / f"{name}.npz") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # names of arrays only
            if new:
                self._delete_old()
        except OSError:  # a full disk, missing permissions
            return

    def delete(self, group: str) -> None:
        """Delete all entries of a group."""
        shutil.rmtree(self._folder(group), ignore_errors=True)

    def _folder(self, group: str) -> Path:
        return self.folder / short_hash(f"{self.version}:{group}")

    def _delete_old(self) -> None:
        folders = sorted(self.folder.iterdir(), key=lambda path: -path.stat().st_mtime)
        for folder in folders[self.groups :]:
            shutil.rmtree(folder, ignore_errors=True)
