"""Open a config without weights: a base with random weights, as transformers initialises it.

The config comes from a file, or from another base with some settings changed, as in
`bundled,num_hidden_layers=12`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surgery.architecture.config.rewrite import edit, unquantized
from surgery.errors import BaseError
from surgery.progress import Progress

from .folder import check_counts, config_from, read_json
from .source import Source

_SETTING = re.compile(r",\s*([A-Za-z_]\w*)\s*=\s*([^,]*)$")
_NOTE = "randomly initialised from a config"


def open_config_only(
    text: str,
    progress: Progress,
    path_of: Callable[[str], Path],
    open_other: Callable[[str, Progress], Source],
) -> Source:
    """Open the base that `config:text` names. Raises `BaseError` or `Refused`.

    `path_of` turns text into a path; `open_other` opens any other kind of base.
    """
    place, changes = _settings(text)
    path = path_of(place)
    is_file = place.endswith(".json") or (path.exists() and not path.is_dir())
    if not is_file and not (path / "config.json").is_file():
        source = open_other(place, progress)
        name, config, home, files = source.name, source.config, source.home, source.files
        identity, tokenizer, check = source.identity, source.get_tokenizer, source.check
    else:
        path = path / "config.json" if path.is_dir() else path
        config = config_from(read_json(path), path)
        folder = path.parent if any(path.parent.glob("tokenizer*.json")) else None
        # “config.json” says little: the folder it lies in says more.
        name = path.parent.name if path.name == "config.json" and path.parent.name else path.stem
        content = path.read_bytes()
        identity = f"{hashlib.sha256(content).hexdigest()}:{folder or ''}"
        home = path.parent
        files = (path, *home.glob("tokenizer*"))

        def tokenizer(progress: Progress) -> Path | None:
            return folder

        def check() -> None:
            if path.is_file() and path.read_bytes() != content:
                raise BaseError(f"{path} changed since it was opened: open it again.")

    config, note = unquantized(config), _NOTE  # random weights are unquantized
    if changes:
        check_counts(changes, "The settings have")
        config = edit(config, changes)
        settings = ", ".join(f"{field} {value}" for field, value in changes.items())
        name, note = f"{name} with {settings}", f"{_NOTE} with {settings}"
    return Source(
        kind="config",
        name=name,
        config=config,
        identity=f"config:{identity}:{json.dumps(changes, sort_keys=True)}",
        note=note,
        home=home,
        files=files,
        check=check,
        get_tokenizer=tokenizer,
    )


def _settings(text: str) -> tuple[str, dict[str, Any]]:
    """Split the text into the place and the settings after it: numbers, true, false or words."""
    changes: dict[str, Any] = {}
    while m := _SETTING.search(text):
        try:
            value = json.loads(m[2])
        except (ValueError, RecursionError):
            value = m[2].strip()
        if isinstance(value, (list, dict)):
            raise BaseError(f"{m[1]} is set to one number or word, not to {m[2][:40]}.")
        changes[m[1]] = value
        text = text[: m.start()]
    return text.strip(), dict(reversed(changes.items()))
