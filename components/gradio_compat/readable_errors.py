"""A `gr.Blocks` that answers invalid event inputs with a readable error.

Gradio 6.31 answers them with `{"error": null}` and a traceback in the log: no help to the client,
and a way for anybody to fill the log of a public page. This can go once Gradio names the value that
it rejects.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from surgery import SurgeryError

from .kept_values import KeptValues

_LONGEST = 200  # characters of Gradio's own message


class ReadableErrors(KeptValues):
    """The page's blocks. On a public page unexpected errors are logged as one line."""

    def __init__(self, *args: Any, public: bool = False, **options: Any) -> None:
        self._public = public
        super().__init__(*args, **options)

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """Raise `gr.Error` if the number of values is wrong."""
        wanted = len(block_fn.inputs)
        if len(inputs) == wanted or block_fn.cancels:  # cancelling events get the session hash
            return
        names = ""
        if block_fn.api_visibility == "public":
            names = ", ".join(list(inspect.signature(block_fn.fn).parameters)[:wanted])
        raise _error(
            f"Expected {wanted} value{'s' * (wanted != 1)}"
            + (f" ({names})" if names else "")
            + f", got {len(inputs)}."
        )

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more, **options) -> list:
        """Raise `gr.Error` if a component rejects its value."""
        try:
            return await super().preprocess_data(block_fn, inputs, *more, **options)
        except gr.Error as error:
            why = _out_of_bounds(block_fn.inputs, inputs) or str(error.message)[:_LONGEST]
            raise _error(why) from None
        except Exception:  # components raise many kinds of errors
            raise _error("A value has the wrong type.") from None

    async def call_function(self, block_fn: Any, *inputs, **options) -> dict:
        """On a public page, log an unexpected error briefly and raise it as `gr.Error`."""
        try:
            return await super().call_function(block_fn, *inputs, **options)
        except (gr.Error, SurgeryError, StopIteration, StopAsyncIteration):
            raise
        except Exception as error:
            if not self._public:
                raise
            log(error)
            raise _error("This call failed with the given values.") from None


def _out_of_bounds(fields: Sequence[Any], values: list[Any]) -> str:
    """Which number is too small or too large, by the label of its field; empty if none is."""
    for field, value in zip(fields, values, strict=False):
        if not isinstance(field, gr.Number) or not isinstance(value, int | float):
            continue
        if field.minimum is not None and value < field.minimum:
            return f"{field.label} must be at least {field.minimum:g}."
        if field.maximum is not None and value > field.maximum:
            return f"{field.label} must be at most {field.maximum:g}."
    return ""


def log(error: Exception) -> None:
    """Print an error's place, type and message to stderr, as one line of limited length."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    message = " ".join(str(error).split())[:_LONGEST]
    print(f"{where}: {type(error).__name__}: {message!r}", file=sys.stderr)


def _error(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)
