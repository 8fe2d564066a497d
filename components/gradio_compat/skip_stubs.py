"""Gradio without the stubs that it writes: half of the time that importing it takes.

For every component class, ours too, Gradio parses its source and writes a .pyi file for editors
beside it. It leaves out classes whose file can't be told, so that is what it is told. To be called
before Gradio is imported, so it imports nothing of it.
"""

from __future__ import annotations

import inspect

_META = ("gradio.component_meta", "ComponentMeta")
_getfile = inspect.getfile


def skip() -> None:
    """Have no stubs written in this process."""
    inspect.getfile = _without_components


def _without_components(thing: object) -> str:
    kind = type(thing)
    if (kind.__module__, kind.__name__) == _META:
        raise OSError("A component's file is not told: no stub is wanted.")
    return _getfile(thing)
