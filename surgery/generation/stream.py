"""Generate text as an iterator, one token at a time, computed when it is asked for.

Any number of streams can run side by side over one set of weights: each has its own cache and its
own random numbers.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper
from transformers.generation.utils import ALL_CACHE_NAMES

from surgery.architecture.inspect.kv_cache import match_dtypes
from surgery.architecture.inspect.layer_list import embedding_table
from surgery.compute.contexts import many_rows, stored_dtype
from surgery.errors import SurgeryError, one_line
from surgery.memory.out_of_memory import memory_message


@dataclass
class Stats:
    """Statistics of a stream so far. Times are seconds of this stream's own work, not of
    waiting."""

    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float | None = None
    finished: str | None = None  # "end": the model ended; "length": max_new_tokens reached

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding speed without the prompt's forward pass; None before the second token."""
        if self.tokens < 2 or self.first_token_seconds is None:
            return None
        rest = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / rest if rest > 0 else None


class Stream:
    """An iterator of pieces of text. `close()` ends it and frees its cache."""

    #: Whether the prompt has an image, so that its tokens alone don't say what the model was given.
    has_image = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt_ids: list[int],
        *,
        max_new_tokens: int,
        seed: int,
        temperature: float,
        top_p: float,
        greedy: bool,
    ) -> None:
        self.stats = Stats(prompt_tokens=len(prompt_ids))
        self.prompt_ids = tuple(prompt_ids)
        self._model, self._tokenizer = model, tokenizer
        device = embedding_table(model).device
        self._next_input = torch.tensor([prompt_ids], device=device)
        self._cache: dict = {}
        # Only those of the last token are needed, where the model can leave out the others.
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_logits = {"logits_to_keep": 1} if keeps else {}
        self._limit = max_new_tokens
        self._greedy = greedy
        self._warpers = LogitsProcessorList()
        if temperature != 1.0:
            self._warpers.append(TemperatureLogitsWarper(float(temperature)))
        if top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(top_p))
        # On the CPU, so that a seed means the same random numbers on every device.
        self._random = torch.Generator().manual_seed(seed)
        self._ends = _end_tokens(model, tokenizer)
        self._ids: list[int] = []
        self._shown = ""
        self._pieces: list[tuple[str, int]] = []
        self._counted = 0  # tokens of all pieces

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self.stats.finished is None:
            started = time.perf_counter()
            token = self._step()
            took = time.perf_counter() - started
            self.stats.seconds += took
            if self.stats.first_token_seconds is None:
                self.stats.first_token_seconds = took
            if token in self._ends:
                self._finish("end")
            else:
                self.stats.tokens += 1
                self._ids.append(token)
                if self.stats.tokens >= self._limit:
                    self._finish("length")
            if piece := self._new_text():
                return piece
        raise StopIteration

    @property
    def ids(self) -> list[int]:
        """The tokens so far."""
        return list(self._ids)

    @property
    def pieces(self) -> list[tuple[str, int]]:
        """The pieces of text so far, each with the number of its tokens: more than one where a
        character is made of several."""
        return list(self._pieces)

    def close(self) -> None:
        """Stop at once: no further token is computed."""
        self._finish(self.stats.finished or "stopped")

    def _finish(self, why: str) -> None:
        self.stats.finished = why
        self._cache = {}

    @torch.inference_mode()
    def _step(self) -> int:
        try:
            output = self._forward()
        except (RuntimeError, IndexError) as error:  # shapes that don't go together, no memory left
            self._finish("stopped")
            raise SurgeryError(
                memory_message(error, "Shorten the prompt, or ask for fewer tokens.")
                or f"The model can't compute the next token: {one_line(error, 200)}"
            ) from error
        name = next((n for n in ALL_CACHE_NAMES if output.get(n) is not None), None)
        # Where the model is: to sort a large vocabulary on the CPU takes longer than the model's
        # own work on a GPU. The result is waited for once or twice a token.
        logits = output.logits[:, -1].float()
        largest, likeliest = logits.max(-1)
        if not math.isfinite(float(largest)):  # NaN anywhere, +inf, or nothing but -inf
            self._finish("stopped")
            raise SurgeryError(
                "The model's output is not a number (NaN): this plan breaks it, or its weights are "
                "broken already."
            )
        if self._greedy:
            token = int(likeliest)
        else:
            shares = self._warpers(cast(torch.LongTensor, self._next_input), logits).softmax(-1)
            token = int(torch.multinomial(shares.cpu(), 1, generator=self._random))
        fed = torch.tensor([[token]], device=self._next_input.device)
        if name is None:  # a model without a cache sees everything again
            fed = torch.cat([self._next_input, fed], dim=1)
        else:
            self._cache = {name: output[name]}
        self._next_input = fed
        return token

    def _forward(self):
        """The model's output for the next input: a prompt in `compute_dtype`, a token as stored."""
        rows = self._next_input.shape[1]
        with many_rows(self._model, rows):
            output = self._model(
                input_ids=self._next_input, use_cache=True, **self._cache, **self._last_logits
            )
        if not self._cache and output.logits.dtype != stored_dtype(self._model):
            # Decoding goes on as stored, so the cache has to have the dtypes that it would have.
            stored = self._model(input_ids=self._next_input[:, :1], use_cache=True)
            for name in ALL_CACHE_NAMES:
                if output.get(name) is not None:
                    output[name] = match_dtypes(output[name], stored[name])
        return output

    def _new_text(self) -> str:
        """The text that the last tokens added; whole characters only."""
        text = str(
            self._tokenizer.decode(
                self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        if self.stats.finished is None and text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""  # half of a character: the next token brings the rest
        piece, self._shown = text[len(self._shown) :], text
        if piece:
            self._pieces.append((piece, len(self._ids) - self._counted))
            self._counted = len(self._ids)
        return piece


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        ends = tokenizer.eos_token_id
    if ends is None:
        return set()
    ends = ends if isinstance(ends, (list, tuple)) else [ends]
    if not all(type(end) is int for end in ends):
        raise SurgeryError(
            f"eos_token_id in generation_config.json is {str(ends)[:60]}: it has to be a token id "
            "or a list of token ids. Correct it, or remove the file."
        )
    return set(ends)
