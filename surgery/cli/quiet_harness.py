"""Keep lm-eval's own output off the terminal."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet_harness() -> Iterator[None]:
    """Without lm-eval's advice to programmers, and without its progress bars unless stderr is a
    terminal: it writes them to files, too."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if sys.stderr.isatty():
        yield
        return
    with redirect_stderr(io.StringIO()):
        yield
