"""Keep streams of pages that were left out of the server's log.

When a page is left, Gradio 6.31 forgets its messages; another stream of the same page then finds
none and raises 404 in the middle of its answer, which the server logs as a failure of the app, with
a traceback. This can go once such a stream just ends.
"""

from __future__ import annotations

import logging


def keep_out_of_the_log() -> None:
    """Filter those failures out of uvicorn's log, for the whole process."""
    log = logging.getLogger("uvicorn.error")
    if _matters not in log.filters:
        log.addFilter(_matters)


def _matters(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return getattr(error and error.__cause__, "status_code", None) != 404
