"""Open a model: the bundled one, from the Hub, a folder, a GGUF file, or a bare config; or one of
them with an adapter merged into it.

Opening reads the config and the tensor headers into a `Source`; only `fetch` transfers weights.
"""

from __future__ import annotations

import re
from pathlib import Path

from surgery.errors import BaseError
from surgery.io.atomic import restored
from surgery.progress import Progress, silent

from .source import Source, Tensor

__all__ = ["Source", "Tensor", "kind_of", "open_source"]

_HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+(?:@[\w./-]+)?")
_PATH = ("/", "./", "../", "~", "\\")  # what paths begin with, and ids don't


def kind_of(spec: str) -> str:
    """Return the kind of source that a spec names: bundled, config, gguf, folder, adapter or hub.

    Looks at the local disk to tell a folder from a Hub id, as transformers does. Raises `BaseError`
    for text that can be neither.
    """
    spec = spec.strip()
    if not spec or len(spec) > 4096 or "\0" in spec:
        raise BaseError("Name a model: “bundled”, a Hub id such as org/name, or a folder.")
    if spec == "bundled":
        return "bundled"
    if spec.startswith("config:"):
        return "config"
    if spec.lower().endswith(".gguf"):
        return "gguf"
    try:
        if restored(path := Path(spec).expanduser()) and path.is_dir():
            return "folder"
    except (OSError, RuntimeError, ValueError):  # too long, an unknown home, not UTF-8
        pass
    if split_adapter(spec):
        return "adapter"
    if spec.startswith(_PATH) or spec.endswith("/") or spec in (".", ".."):
        return "folder"
    parts = [part.strip() for part in spec.split("+")]
    if len(parts) > 2 and all(part.startswith(_PATH) or _is_name(part) for part in parts):
        raise BaseError(
            f"“{spec[:80]}” names several adapters, and one is merged at a time: save the base "
            "with the first, and name the saved folder as the base of the next."
        )
    if not _is_name(spec):
        raise BaseError(
            f"“{spec[:80]}” is neither a folder nor a Hub id. Write bundled, org/name, "
            "org/name@revision, a folder, file.gguf, config:file.json or BASE+ADAPTER."
        )
    return "hub"


def split_adapter(spec: str) -> tuple[str, str] | None:
    """Split “BASE+ADAPTER”; None if `spec` names no adapter.

    A “+” may also be part of a path. A spec that is a folder itself is not split; nor is one that
    begins with “config:” or ends with “.gguf”. Otherwise the last “+” counts with a base before it
    (on this machine, or a Hub id, where no “+” occurs) and no other “+” in the adapter behind it,
    unless that exists.
    """
    if spec.startswith("config:") or spec.lower().endswith(".gguf") or _exists(spec):
        return None
    for cut in (m.start() for m in reversed([*re.finditer(r"\+", spec)])):
        parts = spec[:cut].strip(), spec[cut + 1 :].strip()
        base, adapter = parts
        is_base = _exists(base) or (_HUB_ID.fullmatch(base) and not base.startswith(_PATH))
        if is_base and adapter and ("+" not in adapter or _exists(adapter)):
            return parts
    return None


def _is_name(text: str) -> bool:
    """Whether a text can be a Hub id."""
    return bool(_HUB_ID.fullmatch(text)) and ".." not in text and "--" not in text


def _exists(text: str) -> bool:
    try:
        path = Path(text).expanduser()
        return restored(path) and path.exists()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown home, not UTF-8
        return False


def open_source(spec: str, progress: Progress = silent) -> Source:
    """Open what `spec` names, and read its config and headers. Raises `BaseError`."""
    from . import bundled, config_only, folder, gguf, hub

    spec = spec.strip()
    kind = kind_of(spec)
    try:
        match kind:
            case "bundled":
                return bundled.open_bundled(progress)
            case "config":
                return config_only.open_config_only(
                    spec.removeprefix("config:"), progress, _path, open_source
                )
            case "gguf":
                return gguf.open_gguf(_path(spec))
            case "folder":
                return folder.open_folder(_path(spec))
            case "adapter":
                return _open_adapter(spec, progress)
            case _:
                return hub.open_hub(spec, progress)
    except OSError as error:  # no permission, a name too long, a disk that fails or is full
        place = error.filename or spec
        raise BaseError(f"{str(place)[:200]} can't be read: {error.strerror or error}.") from error


def _open_adapter(spec: str, progress: Progress) -> Source:
    from . import folder, hub
    from .adapter import open_merged

    parts = split_adapter(spec)
    assert parts
    name, place = parts
    if kind_of(place) == "folder":
        found, revision = _path(place), None
        if not found.is_dir():
            raise BaseError(f"There is no folder {found}.")
        folder.check_adapter(found.name, (path.name for path in found.iterdir()))
    elif kind_of(place) == "hub":
        found, *where = hub.get_adapter(place, progress)
        revision = (where[0], where[1])
    else:
        raise BaseError(
            f"“{place[:80]}” is not an adapter: name a LoRA's folder or Hub id after the “+”."
        )
    return open_merged(open_source(name, progress), found, revision, progress)


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # a loop of links, an unknown home, not UTF-8
        raise BaseError(f"“{text[:80]}” is not a path on this machine: {error}") from error
