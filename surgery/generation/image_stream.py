"""Generate text after a prompt with an image."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from surgery.compute.contexts import stored_dtype
from surgery.errors import SurgeryError, one_line

from .stream import Stream


class ImageStream(Stream):
    """A stream whose prompt is `inputs`: `input_ids` (1, tokens) and what carries the image.

    The model's positions, and which inputs belong to the first pass alone, differ from family to
    family. So each pass is prepared by the methods that the model's own `generate` uses. The model
    keeps some of it (Qwen's `rope_deltas`): no two streams may share one.
    """

    has_image = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        inputs: Mapping[str, torch.Tensor],
        **settings: Any,
    ) -> None:
        super().__init__(model, tokenizer, inputs["input_ids"][0].tolist(), **settings)
        device, dtype = self._next_input.device, stored_dtype(model)
        others = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in inputs.items()
            if name != "input_ids"
        }
        self._arguments = {**others, "use_cache": True, **self._last_logits}

    def _forward(self):
        """The model's output for the next input, computed as stored."""
        model, first = cast(Any, self._model), not self._cache
        sequence = torch.tensor([[*self.prompt_ids, *self._ids]], device=self._next_input.device)
        takes = inspect.signature(model.forward).parameters
        try:
            if "position_ids" in takes and "position_ids" not in self._arguments:
                self._arguments["position_ids"] = model._prepare_position_ids_for_generation(
                    sequence, self._arguments
                )
            given = model.prepare_inputs_for_generation(
                sequence,
                next_sequence_length=None if first else 1,
                is_first_iteration=first,
                **self._arguments,
            )
            output = model(**given, return_dict=True)
        except (RuntimeError, IndexError):  # memory, say: explained as for any text
            raise
        except Exception as error:  # a processor that doesn't belong to the model, say
            raise SurgeryError(
                f"The model can't take this image: {one_line(error, 200)}"
            ) from error
        self._arguments = model._update_model_kwargs_for_generation(
            output, self._arguments, is_encoder_decoder=False
        )
        return output

    def _finish(self, why: str) -> None:
        super()._finish(why)
        self._arguments = {}
