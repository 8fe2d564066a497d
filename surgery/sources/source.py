"""What opening a source yields: a config, the places of tensors, and how to fetch the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.errors import BaseError
from surgery.io.copy import Readable
from surgery.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Tensor:
    """A stored tensor: safetensors' name of its dtype, and bytes [start, end) of a file."""

    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int


# (file, start, end) -> that part of it, opened for reading
Opener = Callable[[str, int, int], Readable]


def _nothing(progress: Progress) -> None:
    return None


def _unchanging() -> None:
    return None


@dataclass(frozen=True)
class Source:
    """A model as found. `identity` is equal for equal files, and another when they change.

    `open_range(file, start, end)` reads parts of files that aren't on this machine, if it is given.
    `tensors` is empty where nothing is stored as safetensors yet (a GGUF file, a bare config).
    `hub_id` and `licence` are None where they aren't known; `note` says what a reader should know
    about where the weights come from; `home` is its local folder, if any, and `files` are its files
    there (all of them if empty). `check` raises `BaseError` if the files have changed since they
    were opened: offsets and shapes that were read from them would be wrong then.

    `merged` are the base and the adapter that these weights are merged from, if they are. Then
    `open_unwritten` returns a folder with everything but the weights, and a function that opens
    parts of `tensors`' file, which are computed as they are read; `fetch` writes that file.
    """

    kind: str
    name: str
    config: PreTrainedConfig
    identity: str
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    hub_id: str | None = None
    revision: str | None = None
    licence: str | None = None
    note: str = ""
    home: Path | None = field(default=None, repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    merged: tuple[Source, ...] = field(default=(), repr=False)
    check: Callable[[], None] = field(default=_unchanging, repr=False)
    open_range: Opener | None = field(default=None, repr=False)
    open_unwritten: Callable[[Progress], tuple[Path, Opener]] | None = field(
        default=None, repr=False
    )
    get_files: Callable[[Progress], Path | None] = field(default=_nothing, repr=False)
    get_companions: Callable[[Progress], Path | None] = field(default=_nothing, repr=False)
    get_tokenizer: Callable[[Progress], Path | None] = field(default=_nothing, repr=False)

    @property
    def pinned_id(self) -> str | None:
        """Its Hub id, with the commit if it is known."""
        return f"{self.hub_id}@{self.revision}" if self.revision else self.hub_id

    @property
    def has_changed(self) -> bool:
        """Whether its files have changed since they were opened; see `check`."""
        try:
            self.check()
        except BaseError:
            return True
        return False

    def local_files(self) -> Iterator[Path]:
        """The files on this machine, down to one folder deep; links are not followed."""
        if self.merged:
            for part in self.merged:
                yield from part.local_files()
        elif self.files:
            yield from self.files
        elif self.home is not None:
            for pattern in ("*", "*/*"):
                yield from (path for path in self.home.glob(pattern) if not path.is_dir())

    def fetch(self, progress: Progress = silent) -> Path | None:
        """Return a local folder with config and safetensors; None for a bare config. May download
        or convert, once. Raises `BaseError`."""
        return self.get_files(progress)

    def files_folder(self, progress: Progress = silent) -> Path:
        """`fetch` for a source that has files. Raises `BaseError`."""
        return self._present(self.fetch(progress))

    def companions_folder(self, progress: Progress = silent) -> Path:
        """Return a local folder with everything but the weights. Raises `BaseError`."""
        return self._present(self.get_companions(progress))

    def _present(self, folder: Path | None) -> Path:
        if folder is None:
            raise BaseError(f"{self.name} has no files: it is a config alone.")
        return folder

    def tokenizer_folder(self, progress: Progress = silent) -> Path | None:
        """Return a local folder with the tokenizer's files, if there are any."""
        return self.get_tokenizer(progress)
