"""What is read while healing: windows of tokens from a file, a data set, or the base itself.

Knows text and tokenizers. All of it is turned into one table of windows before the first step, so
that a step's windows are the same however often a run is stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from transformers.generation.utils import ALL_CACHE_NAMES

from ..base import Base
from ..errors import BaseError, SurgeryError
from ..progress import Progress, silent

_ROWS = 192  # windows that are sampled at a time: a few hundred cost half of what 48 do, a token
_GREEDY = 4  # tokens after the first that are the likeliest ones
_MOST = 1 << 22  # tokens of a data set that are read if nobody says how many steps there are
_CHUNK = 1 << 18  # characters of a file that are tokenised at a time


def of_file(base: Base, path: str, window: int, most: int | None = None) -> torch.Tensor:
    """The text of a file as windows, (count, window); what is left over at its end is dropped."""
    return _packed(base, _chunks(Path(path).expanduser()), window, most, joined=False)


def of_data_set(base: Base, name: str, window: int, most: int | None) -> torch.Tensor:
    """The first `most` tokens of a Hub data set's training split, streamed, as windows.

    Documents are its rows' `text` (or only column of text), put one after the other with the
    tokenizer's end token between. Raises `SurgeryError`.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise SurgeryError("Data sets need one more package: pip install datasets.") from error
    path, _, part = name.partition(":")
    try:
        rows = iter(load_dataset(path, part or None, split="train", streaming=True))
        first = next(rows)
        columns = [key for key, value in first.items() if isinstance(value, str)]
        column = "text" if "text" in columns else columns[0] if len(columns) == 1 else None
        if column is None:
            raise SurgeryError(f"{path} has no column called text: {', '.join(first)[:200]}.")
        texts = (row[column] for row in _and_then(first, rows))
        return _packed(base, texts, window, most or _MOST, joined=True)
    except SurgeryError:
        raise
    except StopIteration:
        raise SurgeryError(f"{path} is empty.") from None
    except Exception as error:  # no network, no such set, a script that would have to be run, …
        said = " ".join(str(error).split())[:200]
        raise SurgeryError(f"The data set {path[:80]} can't be read: {said}") from error


def sampled(
    base: Base, count: int, window: int, seed: int, progress: Progress = silent
) -> torch.Tensor:
    """`count` windows that the base itself writes, (count, window): data-free distillation as in
    LLM-QAT (arXiv 2305.17888). The first token of each is a word drawn evenly from the vocabulary,
    the next few are the likeliest ones, all others are drawn from the base's distribution as it is.
    """
    model, words = base.load(progress), _words(base)
    device = model.get_input_embeddings().weight.device
    random = torch.Generator().manual_seed(seed)
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if limit and window > limit:
        raise SurgeryError(f"Windows of {window:,} tokens are longer than the context, {limit:,}.")
    found = []
    for begun in range(0, count, _ROWS):
        first = words[torch.randint(len(words), (min(_ROWS, count - begun), 1), generator=random)]
        rows, fed, cache = [first], first, {}
        for place in range(1, window):
            with torch.inference_mode():
                output = model(input_ids=fed.to(device), use_cache=True, **cache)
            logits = output.logits[:, -1].float().cpu()
            if not logits.max(-1).values.isfinite().all():
                raise BaseError(f"{base.name} can't write text: its output is not a number.")
            if place <= _GREEDY:
                new = logits.argmax(-1, keepdim=True)
            else:
                new = torch.multinomial(logits.softmax(-1), 1, generator=random)
            rows.append(new)
            name = next((n for n in ALL_CACHE_NAMES if output.get(n) is not None), None)
            fed, cache = (new, {name: output[name]}) if name else (torch.cat(rows, 1), {})
            progress("The base writes text", begun * window + place * len(first), count * window)
        found.append(torch.cat(rows, 1))
    progress("The base writes text", count * window, count * window)
    return torch.cat(found).to(torch.int32)


def _words(base: Base) -> torch.Tensor:
    """Tokens that a text may begin with: those that read as letters, or any if there are few."""
    model = base.model
    rows = model.get_input_embeddings().weight.shape[0]
    if not base.has_tokenizer:
        return torch.arange(rows)
    tokenizer = base.tokenizer
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(min(len(tokenizer), rows)) if i not in special]
    texts = tokenizer.batch_decode([[i] for i in ids])
    letters = [i for i, text in zip(ids, texts, strict=True) if text.strip().isalpha()]
    return torch.tensor(letters if len(letters) > 20 else ids)


def _chunks(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8") as file:
            while chunk := file.read(_CHUNK):
                yield chunk + file.readline()  # words are not cut in two
    except OSError as error:
        raise SurgeryError(f"{path} can't be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise SurgeryError(f"{path} is no text in UTF-8.") from error


def _packed(
    base: Base, texts: Iterable[str], window: int, most: int | None, joined: bool
) -> torch.Tensor:
    tokenizer = base.tokenizer
    end = [tokenizer.eos_token_id] if joined and tokenizer.eos_token_id is not None else []
    ids: list[int] = []
    parts: list[torch.Tensor] = []
    room = None if most is None else -(-most // window)
    for text in texts:
        ids += tokenizer(text, add_special_tokens=False)["input_ids"] + end
        whole = len(ids) // window
        if whole:
            parts.append(torch.tensor(ids[: whole * window], dtype=torch.int32).view(-1, window))
            ids = ids[whole * window :]
        if room is not None and sum(map(len, islice(parts, len(parts)))) >= room:
            break
    if not parts:
        raise SurgeryError(
            f"The text is shorter than one window of {window:,} tokens: give more, or choose a "
            "shorter window."
        )
    found = torch.cat(parts)[:room]
    rows = base.anatomy.model.get_input_embeddings().weight.shape[0]
    if int(found.max()) >= rows:
        raise SurgeryError(
            "The tokenizer has more tokens than the model: they don't belong together."
        )
    return found


def _and_then(first: dict, rest: Iterator[dict]) -> Iterator[dict]:
    yield first
    yield from rest
