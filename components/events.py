"""Gradio's `Blocks`, but for values that an event can't take: those are refused in a sentence.

Gradio answers them with `{"error": null}` and a traceback in the log, which is nothing to a program
that counted wrong, and lets anybody fill the log of a public page.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import gradio as gr

from surgery import SurgeryError

from .deployment import current

_LONGEST = 200  # characters of what Gradio says of a value


class Events(gr.Blocks):
    """The page's blocks."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """Raise `gr.Error` for fewer values than are taken, or more."""
        wanted = len(block_fn.inputs)
        if len(inputs) == wanted or block_fn.cancels:  # those are given the session's name
            return
        names = ""
        if block_fn.api_visibility == "public":
            names = ", ".join(list(inspect.signature(block_fn.fn).parameters)[:wanted])
        raise _error(
            f"{len(inputs)} value{'s' * (len(inputs) != 1)} came, and {wanted} are taken"
            + (f": {names}." if names else ".")
        )

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more, **options) -> list:
        """Raise `gr.Error` for what a component doesn't take."""
        try:
            return await super().preprocess_data(block_fn, inputs, *more, **options)
        except gr.Error as error:
            raise _error(str(error.message)[:_LONGEST]) from None
        except Exception:  # components say it in many ways
            raise _error("A value has the wrong type.") from None

    async def call_function(self, block_fn: Any, *inputs, **options) -> dict:
        """On a public page, whatever goes wrong is a line in the log."""
        try:
            return await super().call_function(block_fn, *inputs, **options)
        except (gr.Error, SurgeryError, StopIteration, StopAsyncIteration):
            raise
        except Exception as error:
            if not current().public:
                raise
            log(error)
            raise _error("That can't be done with these values.") from None


def log(error: Exception) -> None:
    """Where it happened and what it was, in a line: a stranger can have it written at will."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    said = " ".join(str(error).split())[:_LONGEST]
    print(f"{where}: {type(error).__name__}: {said!r}", file=sys.stderr)


def _error(said: str) -> gr.Error:
    return gr.Error(said, print_exception=False)
