"""Keep small JSON values on disk between runs, one file per key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .cache_file import whole_file
from .cache_folder import short_hash

States = dict[str, list[int]]


class JsonCache:
    """Values by key in `folder`: the `most` that were written last.

    A value may depend on files and folders: it counts as absent once the size, inode or time of the
    last change of one of them differs. So does one that can't be read. Files are written
    atomically; a value that can't be written is dropped. Callers find such values out again.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most

    def get(self, key: str) -> Any:
        """The value of a key, or None."""
        try:
            record = json.loads(self._path(key).read_bytes())
            return record["value"] if record["files"] == states_of(record["files"]) else None
        except (OSError, ValueError, KeyError, TypeError):  # absent, cut off, written by hand
            return None

    def put(
        self,
        key: str,
        value: Any,
        files: Iterable[Path] | States = (),
        default: Callable[[Any], Any] | None = None,
    ) -> None:
        """Write a value, and delete the oldest beyond the limit. `files` are those it depends on,
        or their states from before they were read, so that a change meanwhile is noticed. `default`
        is that of `json.dumps`."""
        try:
            states = files if isinstance(files, dict) else states_of(files)
            record = {"files": states, "value": value}
            with whole_file(self._path(key)) as file:
                file.write(json.dumps(record, default=default).encode())
            for path in sorted(self.folder.glob("*.json"), key=_age)[self.most :]:
                path.unlink(missing_ok=True)
        except OSError:  # a full disk, missing permissions
            return

    def _path(self, key: str) -> Path:
        return self.folder / f"{short_hash(key)}.json"


def _age(path: Path) -> float:
    return -path.stat().st_mtime


def states_of(paths: Iterable[Path | str]) -> States:
    """Size, time of the last change and inode of each file or folder. Raises `OSError`."""
    states = {}
    for path in paths:
        state = Path(path).stat()
        states[str(path)] = [state.st_size, state.st_mtime_ns, state.st_ino]
    return states
