"""Where this project keeps its caches: $LAYER_SURGERY_CACHE, or a folder in the user's cache."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder, which need not exist yet."""
    if own := os.environ.get("LAYER_SURGERY_CACHE"):
        return Path(own).expanduser().absolute()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser().absolute() / "layer-surgery"
