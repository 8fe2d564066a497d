"""Import Gradio without the stubs that it writes, which take half of its import time.

For every component class, ours too, Gradio 6.31 parses the source and writes a .pyi file for
editors beside it, except for classes whose file `inspect.getfile` can't find. So `skip` has that
function find none. Call it before Gradio is imported; this module imports nothing of it. It can go
once writing stubs is optional.
"""

from __future__ import annotations

import inspect
from typing import Any

_META = ("gradio.component_meta", "ComponentMeta")
_getfile = inspect.getfile


def skip() -> None:
    """Write no stubs in this process."""
    inspect.getfile = _without_components


def _without_components(object: Any) -> str:  # the parameter's name is inspect's
    kind = type(object)
    if (kind.__module__, kind.__name__) == _META:
        raise OSError("Hidden, so that no stub is written.")
    return _getfile(object)
