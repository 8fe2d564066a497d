"""Remember what a base on this machine is, so that its numbers are there without importing torch.

Remembered are a base's description and its counts, never what they are computed from. They hold for
the same files (path, size, time of the last change), the same versions of torch, transformers and
this package, and the same accelerators; anything else is unknown, and the base is opened again.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .compute.choice import compute_dtype_of, recall_gain
from .counts import Count, Counts, LayerPart, Layouts, Shared, StoredBytes
from .io.cache_folder import cache_folder
from .io.json_cache import JsonCache, states_of
from .plan import Plan
from .preview import Preview, preview

if TYPE_CHECKING:
    from .model import Model

_MOST = 200  # remembered bases
_DEVICES = ("nvidia[0-9]*", "kfd")  # CUDA's and ROCm's
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_ON_THIS_MACHINE = ("bundled", "folder", "gguf")  # kinds whose files are all there is to them


@dataclass(frozen=True)
class KnownBase:
    """What `inspect` and `preview` need of a base; the same attributes as those of `Base`."""

    name: str
    kind: str
    identity: str
    note: str
    revision: str | None
    architecture: str
    dtype: str
    device: str
    is_quantized: bool
    bytes_per_value: int
    depth: int
    kinds: tuple[str, ...]
    has_tokenizer: bool
    has_chat_template: bool
    takes_images: bool
    why_no_images: str
    licence: str | None
    counts: Counts
    layouts: Layouts
    stored_bytes: StoredBytes | None

    @classmethod
    def of(cls, base: Model) -> KnownBase:
        """Describe an opened base. Reads no weights."""
        return cls(
            name=base.name,
            kind=base.kind,
            identity=base.identity,
            note=base.note,
            revision=base.revision,
            architecture=base.architecture,
            dtype=base.dtype,
            device=base.device,
            is_quantized=base.is_quantized,
            bytes_per_value=base.torch_dtype.itemsize,
            depth=base.depth,
            kinds=tuple(base.kinds),
            has_tokenizer=base.has_tokenizer,
            has_chat_template=base.has_chat_template,
            takes_images=base.takes_images,
            why_no_images=base.why_no_images,
            licence=base.licence,
            counts=base.counts,
            layouts=base.layouts,
            stored_bytes=base.stored_bytes,
        )

    @property
    def compute_dtype(self) -> str | None:
        """The same as of the opened base; None if that depends on this machine's speed, and it was
        never measured."""
        on_cpu = self.device == "cpu"
        return compute_dtype_of(self.dtype, not self.is_quantized, on_cpu, recall_gain)

    def preview(self, plan: Plan) -> Preview:
        """The patient in numbers."""
        return preview(self.counts, plan, self.bytes_per_value, self.stored_bytes)


def recall(spec: str, *, unconfirmed: bool = False) -> KnownBase | None:
    """The base that `spec` names, if it is remembered and its files are unchanged; else None.

    With `unconfirmed` also one that may have changed elsewhere: on the Hub, or with the folder that
    a relative path starts from. It is for callers that open the base nevertheless, to make sure.
    """
    try:
        record = _cache().get(_key(spec))
        if record["conditions"] != _conditions():
            return None
        known = _from_json(record["base"])
        return known if unconfirmed or _is_here(spec, known.kind) else None
    except (KeyError, TypeError, ValueError, OSError, RuntimeError):
        return None  # absent, written by hand, or in the home of an unknown user


def remember(spec: str, base: Model) -> KnownBase:
    """Describe a base, and remember it if it has files on this machine. Measures what its
    `compute_dtype` depends on."""
    known = KnownBase.of(base)
    base.compute_dtype  # noqa: B018  measured, so that the remembered base has it too
    files = [path.absolute() for path in base.local_files()]
    if files:
        folders = {path.parent for path in files}  # their times change when files come or go
        record = {"conditions": _conditions(), "base": known}
        with contextlib.suppress(OSError):  # a file that is gone
            states = states_of([*files, *folders])
            if not base.source.has_changed:  # since what is described was read
                _cache().put(_key(spec), record, states, default=_plain)
    return known


def _cache() -> JsonCache:
    return JsonCache(cache_folder() / "known-bases", _MOST)


def _is_here(spec: str, kind: str) -> bool:
    """Whether a base's files, and those of its adapter, are all on this machine."""
    if kind != "adapter":
        return kind in _ON_THIS_MACHINE
    from .sources import kind_of, split_adapter

    parts = split_adapter(spec.strip())
    return parts is not None and all(_is_here(part, kind_of(part)) for part in parts)


def _key(spec: str) -> str:
    name = spec.strip()
    path = Path(name).expanduser()
    if name == "bundled":
        return name
    if path.exists():
        return str(path.resolve())  # a link, such as “latest”, may lead elsewhere the next time
    if "+" in name:
        from .sources import split_adapter

        if parts := split_adapter(name):
            return "+".join(map(_key, parts))
    return name


def _conditions() -> list[str]:
    """What a description holds for besides the files: the versions that made it, the packages that
    there are (some processors of images need more), and the accelerators, as far as known without
    torch."""
    versions = [__version__, *map(importlib.metadata.version, ("torch", "transformers"))]
    versions.append(str(_packages().stat().st_mtime_ns))  # changes when one comes or goes
    devices = sorted(str(path) for name in _DEVICES for path in Path("/dev").glob(name))
    return versions + devices + [os.environ.get(name, "all") for name in _VISIBLE]


def _packages() -> Path:
    """The folder that packages are installed into."""
    return Path(str(importlib.metadata.distribution("transformers").locate_file("")))


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
            "layouts": Layouts(
                tuple(tuple(map(_part, one)) for one in values["layouts"]["distinct"]),
                tuple(values["layouts"]["of"]),
            ),
            "stored_bytes": stored
            and StoredBytes(
                stored["outside"],
                tuple(stored["layers"]),
                tuple((size, layer, tuple(others)) for size, layer, others in stored["passed_on"]),
            ),
        }
    )


def _count(values: dict[str, Any]) -> Count:
    return Count(**values | {"parameters": Counter(values["parameters"])})


def _part(values: dict[str, Any]) -> LayerPart:
    return LayerPart(**values | {"shape": tuple(values["shape"])})
