"""A name for a base's weights that is the same wherever its files are: a hash of their contents.

Each file is read once; its hash is kept until the file changes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from surgery.io.cache_folder import cache_folder
from surgery.io.json_cache import JsonCache, states_of
from surgery.progress import Meter, Progress

from .source import Source

_MOST = 1000  # remembered files
_CHUNK = 8 << 20  # bytes


def fingerprint(source: Source, progress: Progress | None) -> str | None:
    """The name of a source with files, equal for equal weights and configs.

    `progress` counts the bytes that are read. If it is None, none are read, and the result is None
    unless all hashes are known. Raises `OSError` if a file can't be read.
    """
    if source.merged:
        parts = [fingerprint(part, progress) for part in source.merged]
        return None if None in parts else f"merged:{'+'.join(map(str, parts))}"
    if source.revision:  # a commit on the Hub, which names its files
        return source.identity
    known = JsonCache(cache_folder() / "hashes", _MOST)
    files = _weight_files(source)
    hashes = {path: known.get(str(path)) for path in files}
    todo = [path for path, value in hashes.items() if value is None]
    if todo and progress is None:
        return None
    if todo and progress:
        meter = Meter(progress, "Identifying the weights", sum(p.stat().st_size for p in todo))
        for path in todo:
            before = states_of([path])
            hashes[path] = _hash(path, meter)
            known.put(str(path), hashes[path], before)
    names = json.dumps([_config(source), [[path.name, hashes[path]] for path in files]])
    return f"sha256:{hashlib.sha256(names.encode()).hexdigest()}"


def _weight_files(source: Source) -> list[Path]:
    if source.files:  # one file that has the config too
        return sorted(source.files)
    assert source.home is not None
    return [source.home / name for name in sorted({t.file for t in source.tensors.values()})]


def _config(source: Source) -> str:
    """The config beside the weights, without the version that wrote it; empty if they have it."""
    if source.files or source.home is None:
        return ""
    fields = json.loads((source.home / "config.json").read_bytes())
    fields.pop("transformers_version", None)
    return json.dumps(fields, sort_keys=True)


def _hash(path: Path, meter: Meter) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            meter.add(len(chunk))
    return digest.hexdigest()
