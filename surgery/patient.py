"""The patient: a base and a plan as a runnable model, over the base's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedModel

from .architecture import check_loadable
from .architecture.apply.build import build_patient
from .errors import SurgeryError, one_line
from .generation.chat_prompt import in_chat_template
from .generation.image_prompt import image_inputs, read_image
from .generation.image_stream import ImageStream
from .generation.stream import Stream
from .memory.garbage import uncollected
from .memory.out_of_memory import memory_explained
from .memory.shared_weights import copied, share
from .plan import Plan
from .sources.read_ahead import ReadAhead

if TYPE_CHECKING:
    from .model import Model

LONGEST_ANSWER = 100_000
_NEW_LAYERS = "Close other programs, or plan fewer layers with weights of their own."


@dataclass(frozen=True)
class Patient:
    """`model` is an ordinary transformers model that works with any code that runs one. It is a
    read-only view of the base's weights: train, cast or adapt a `copy()`."""

    base: Model
    plan: Plan
    model: PreTrainedModel = field(repr=False)

    @classmethod
    def of(cls, base: Model, plan: Plan) -> Patient:
        """Operate: build a new skeleton over the base's parameters. Takes milliseconds and no
        memory for weights once the base is loaded. Raises `Refused` if it can't be guaranteed
        correct."""
        check_loadable(base.anatomy)  # before weights are asked for
        loaded = base.model  # here at the latest, with the collector at work
        with uncollected(), memory_explained(_NEW_LAYERS):
            model = share(build_patient(base.anatomy, loaded, plan))
        if base.reads_from_disk:
            reader = ReadAhead(base.source.files_folder(), base.mapped.by_layer, base.source.check)
            reader.attach(base.anatomy, model, plan.sources)
        return cls(base, plan, model)

    def again(self) -> Patient:
        """Return the same patient in another skeleton over the same parameters, so that its layers
        can be observed or replaced while this one is in use."""
        return Patient.of(self.base, self.plan)

    def copy(self) -> PreTrainedModel:
        """Return an independent transformers model on the same device, which can be changed and
        saved. Needs as much memory as the saved checkpoint; raises `SurgeryError` if that is not
        free."""
        return copied(self.model)

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 64,
        seed: int = 0,
        temperature: float = 0.8,
        top_p: float = 0.95,
        greedy: bool = False,
        chat: bool = False,
        image: str | Path | bytes | None = None,
    ) -> Stream:
        """Generate text after `prompt`: an iterator of text pieces, computed as they are asked for.

        `chat` puts the prompt into the base's chat template. `greedy` takes the likeliest token
        each time; otherwise tokens are drawn at `temperature` (0.01 to 100) from the smallest set
        that holds `top_p` (0 to 1) of the probability, the same ones for the same `seed`. `image`
        is an image that the prompt is about, as a file or its bytes, for bases that take one
        (`takes_images`). Raises `SurgeryError` for settings, prompts or images that don't fit.
        """
        if not 1 <= max_new_tokens <= LONGEST_ANSWER:
            raise SurgeryError(f"max_new_tokens can be 1 to {LONGEST_ANSWER:,}.")
        if not (greedy or 0.01 <= temperature <= 100):
            raise SurgeryError("The temperature can be 0.01 to 100; choose greedy for none.")
        if not (greedy or 0 < top_p <= 1):
            raise SurgeryError("top_p has to be above 0 and at most 1.")
        if not 0 <= seed < 2**63:
            raise SurgeryError("The seed has to be a whole number, 0 or above.")
        inputs = self._with_image(prompt, image, chat) if image else None
        ids = inputs["input_ids"][0].tolist() if inputs else self._tokens(prompt, chat)
        window = self.base.context
        if window and len(ids) + max_new_tokens > window:
            raise SurgeryError(
                f"The prompt has {len(ids):,} tokens and {max_new_tokens:,} more are requested; "
                f"this model's context holds {window:,}. Shorten one of them."
            )
        settings: dict[str, Any] = dict(
            max_new_tokens=max_new_tokens,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            greedy=greedy,
        )
        if inputs:  # the model keeps something of the image
            return ImageStream(self.again().model, self.base.tokenizer, inputs, **settings)
        return Stream(self.model, self.base.tokenizer, ids, **settings)

    def _as_chat(self, prompt: str) -> str:
        """Put the prompt into the base's chat template."""
        try:
            return in_chat_template(self.base.tokenizer, prompt)
        except Exception as error:  # whatever a template runs into, or tries
            message = one_line(error, 200)
            raise SurgeryError(
                f"The chat template of {self.base.name} can't be used: {message}. Use plain text."
            ) from error

    def _with_image(
        self, prompt: str, image: str | Path | bytes, chat: bool
    ) -> Mapping[str, Tensor]:
        _check_text(prompt)
        processor = self.base.processor
        if chat and not getattr(processor, "chat_template", None):
            raise SurgeryError(f"{self.base.name} has no chat template for images: use plain text.")
        inputs = image_inputs(processor, prompt, read_image(image), chat)
        self.base.check_tokens(inputs["input_ids"][0].tolist())
        return inputs

    def _tokens(self, prompt: str, chat: bool) -> list[int]:
        tokenizer = self.base.tokenizer
        _check_text(prompt)
        if chat:
            if not self.base.has_chat_template:
                raise SurgeryError(f"{self.base.name} has no chat template: use plain text.")
            text = self._as_chat(prompt)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(prompt)["input_ids"]
        if not ids and tokenizer.bos_token_id is not None:
            ids = [tokenizer.bos_token_id]
        if not ids:
            raise SurgeryError("The prompt is empty: write a few words.")
        self.base.check_tokens(ids)
        return ids


def _check_text(prompt: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in prompt):  # bytes that are no UTF-8 come as these
        raise SurgeryError("The prompt is not valid UTF-8: write it in UTF-8.")
