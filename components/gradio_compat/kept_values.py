"""A `gr.Blocks` in which a generator that yields nothing leaves its outputs as they are.

Gradio 6.31 sends null for each of them, which empties lists and figures: an event that another
overtook would undo what that one shows. This can go once Gradio sends nothing.
"""

from __future__ import annotations

import inspect
from typing import Any

import gradio as gr


class KeptValues(gr.Blocks):
    """Blocks whose silent generators change nothing."""

    async def call_function(
        self, block_fn: Any, processed_input: list, iterator: Any = None, *more: Any, **options: Any
    ) -> dict:
        """Have a generator that ended at once skip its outputs."""
        result = await super().call_function(block_fn, processed_input, iterator, *more, **options)
        begun = iterator is None and inspect.isgeneratorfunction(block_fn.fn)
        if begun and result["iterator"] is None:
            skips = tuple(gr.skip() for _ in block_fn.outputs)
            result["prediction"] = skips[0] if len(skips) == 1 else skips
        return result
