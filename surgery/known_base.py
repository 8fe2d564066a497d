"""Remember what a base on this machine is, so that `inspect` and `preview` answer without torch.

Remembered are a base's description and its counts, never what they are computed from. They hold for
the same files (path, size, time of the last change) and the same versions of torch, transformers
and this package; anything else is unknown, and the base is opened again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .counts import Count, Counts, Shared, StoredBytes
from .io.cache_file import whole_file
from .io.cache_folder import cache_folder
from .plan import Plan
from .preview import Preview, preview

if TYPE_CHECKING:
    from .model import Model

_MOST = 200  # remembered bases


@dataclass(frozen=True)
class KnownBase:
    """What `inspect` and `preview` need of a base; the same attributes as those of `Base`."""

    name: str
    kind: str
    note: str
    architecture: str
    dtype: str
    bytes_per_value: int
    depth: int
    kinds: tuple[str, ...]
    has_tokenizer: bool
    has_chat_template: bool
    licence: str | None
    counts: Counts
    stored_bytes: StoredBytes | None

    @classmethod
    def of(cls, base: Model) -> KnownBase:
        """Describe an opened base. Reads no weights."""
        return cls(
            name=base.name,
            kind=base.kind,
            note=base.note,
            architecture=base.architecture,
            dtype=base.dtype,
            bytes_per_value=base.torch_dtype.itemsize,
            depth=base.depth,
            kinds=tuple(base.kinds),
            has_tokenizer=base.has_tokenizer,
            has_chat_template=base.has_chat_template,
            licence=base.licence,
            counts=base.counts,
            stored_bytes=base.stored_bytes,
        )

    def preview(self, plan: Plan) -> Preview:
        """The patient in numbers."""
        return preview(self.counts, plan, self.bytes_per_value, self.stored_bytes)


def recall(spec: str) -> KnownBase | None:
    """The base that `spec` names, if it is remembered and its files are unchanged; else None."""
    try:
        record = json.loads(_path(spec).read_bytes())
        if record["versions"] != _versions() or record["files"] != _states(record["files"]):
            return None
        return _from_json(record["base"])
    except Exception:  # absent, cut off, written by hand: as good as unknown
        return None


def remember(spec: str, base: Model) -> KnownBase:
    """Describe a base, and remember it if all of it is on this machine."""
    known = KnownBase.of(base)
    files = [path.absolute() for path in base.local_files()]
    if files and base.kind in ("bundled", "folder", "gguf"):
        folders = {path.parent for path in files}  # their times change when files come or go
        record = {
            "versions": _versions(),
            "files": _states(map(str, [*files, *folders])),
            "base": known,
        }
        try:
            with whole_file(_path(spec)) as file:
                file.write(json.dumps(record, default=_plain).encode())
            _delete_old(_path(spec).parent)
        except OSError:  # a full disk, missing permissions
            pass
    return known


def _path(spec: str) -> Path:
    name = spec.strip()
    if name != "bundled":
        name = str(Path(name).expanduser().absolute())
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    return cache_folder() / "known-bases" / f"{key}.json"


def _versions() -> list[str]:
    return [__version__, *map(importlib.metadata.version, ("torch", "transformers"))]


def _states(paths: Iterable[str]) -> dict[str, list[int]]:
    """Size and time of the last change of each file or folder. Raises `OSError`."""
    states = {}
    for path in paths:
        state = Path(path).stat()
        states[path] = [state.st_size, state.st_mtime_ns, state.st_ino]
    return states


def _delete_old(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: -path.stat().st_mtime)
    for path in files[_MOST:]:
        path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else vars(value)


def _from_json(values: dict[str, Any]) -> KnownBase:
    counts, stored = values["counts"], values["stored_bytes"]
    return KnownBase(
        **values
        | {
            "kinds": tuple(values["kinds"]),
            "counts": Counts(
                **counts
                | {
                    "outside": _count(counts["outside"]),
                    "layers": tuple(map(_count, counts["layers"])),
                    "shared": tuple(
                        Shared(one["size"], one["component"], frozenset(one["layers"]))
                        for one in counts["shared"]
                    ),
                }
            ),
            "stored_bytes": stored and StoredBytes(stored["outside"], tuple(stored["layers"])),
        }
    )


def _count(values: dict[str, Any]) -> Count:
    return Count(**values | {"parameters": Counter(values["parameters"])})
