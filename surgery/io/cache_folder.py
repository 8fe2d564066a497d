"""Where this project keeps its caches: $LAYER_SURGERY_CACHE, or a folder in the user's cache."""

import hashlib
import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder, which need not exist yet."""
    if own := os.environ.get("LAYER_SURGERY_CACHE"):
        return Path(own).expanduser().absolute()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser().absolute() / "layer-surgery"


def short_hash(text: str, length: int = 32) -> str:
    """A hash of any text for a file's name; of paths too, which need not be valid UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
