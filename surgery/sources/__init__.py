"""Open a model: the bundled one, from the Hub, a folder, a GGUF file, or a bare config.

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


def kind_of(spec: str) -> str:
    """Return the kind of source that a spec names: bundled, config, gguf, folder or hub.

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
    if spec.startswith(("/", "./", "../", "~", "\\")) or spec.endswith("/") or spec in (".", ".."):
        return "folder"
    if not _HUB_ID.fullmatch(spec) or ".." in spec or "--" in spec:
        raise BaseError(
            f"“{spec[:80]}” is neither a folder nor a Hub id. Write bundled, org/name, "
            "org/name@revision, a folder, file.gguf or config:file.json."
        )
    return "hub"


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
            case _:
                return hub.open_hub(spec, progress)
    except OSError as error:  # no permission, a name too long, a disk that fails or is full
        place = error.filename or spec
        raise BaseError(f"{str(place)[:200]} can't be read: {error.strerror or error}.") from error


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # a loop of links, an unknown home, not UTF-8
        raise BaseError(f"“{text[:80]}” is not a path on this machine: {error}") from error
