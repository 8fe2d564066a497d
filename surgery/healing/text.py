"""What is read while healing: windows of tokens from a file, a data set, or the base itself.

Knows text and tokenizers; which of the three it is, settings say. All of it is turned into one
table of windows before the first step, so that a step's windows are the same however often a run
is stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from transformers.generation.utils import ALL_CACHE_NAMES

from surgery.base import Base
from surgery.errors import BaseError, SurgeryError
from surgery.optional import require
from surgery.plan import Plan
from surgery.progress import Progress, silent
from surgery.texts.dataset import reading, text_column

from .settings import Settings

_ROWS = 96  # windows that are sampled at a time: a hundred cost half of what 48 do, a token
_ROWS_UNKNOWN = 48  # the same, of models whose cache can't be reckoned
_ROWS_FIRST = 8  # the same, while it isn't known yet how long it takes
_CACHE = 3_000_000_000  # bytes that the cache may take meanwhile
_MOST_SAMPLED = 1 << 18  # tokens that are sampled if nobody says how many
_GREEDY = 4  # tokens after the first that are the likeliest ones
_MOST = 1 << 22  # tokens of a data set that are read if nobody says how many steps there are
_CHUNK = 1 << 18  # characters of a file that are tokenised at a time
_ROWS_SUFFIXES = (".jsonl", ".ndjson")  # files of rows, as a data set has them
_READING = "Reading the text"
_WRITING = "The base writes text"


def read(
    base: Base, settings: Settings, progress: Progress = silent, seconds: float | None = None
) -> torch.Tensor:
    """What these settings read, as windows of tokens, (count, window); what the base writes in
    `seconds`, if that is said. Raises `SurgeryError`."""
    s = settings
    needed = None if s.steps is None else s.steps * s.tokens_per_step
    if s.text:
        return of_file(base, s.text, s.window, needed, progress)
    if s.data:
        return of_data_set(base, s.data, s.window, needed, progress)
    # Text that is read again is memorised (docs/explanation/healing.md): read no more than once.
    count = (s.sampled_tokens or min(needed or _MOST_SAMPLED, _MOST_SAMPLED)) // s.window
    return sampled(base, max(1, count), s.window, s.seed, progress, seconds)


def writing_bytes(base: Base, settings: Settings) -> int:
    """Bytes that the cache takes while the base writes the text; 0 if it writes none."""
    s = settings
    if s.text or s.data:
        return 0
    return rows_at_once(base, s.window) * s.window * _cached(base)


def rows_at_once(base: Base, window: int) -> int:
    """How many windows the base writes side by side. It follows from the model alone, so that the
    same settings give the same text wherever they run."""
    each = _cached(base) * window
    return max(1, min(_ROWS, _CACHE // each)) if each else _ROWS_UNKNOWN


def _cached(base: Base) -> int:
    """Bytes of cache for each token; 0 if that isn't known, or nothing grows."""
    return base.preview(Plan.whole(base.depth)).kv_bytes_per_token or 0


def of_file(
    base: Base, path: str, window: int, most: int | None = None, progress: Progress = silent
) -> torch.Tensor:
    """The text of a file as windows, (count, window); what is left over at its end is dropped. Of
    JSON Lines (`.jsonl`) it is the text of the rows, as of a data set."""
    place = Path(path).expanduser()
    if place.suffix.lower() in _ROWS_SUFFIXES:
        rows = _documents(_rows(place), place.name)
        return _packed(base, rows, window, most, joined=True, progress=progress)
    return _packed(base, _chunks(place), window, most, joined=False, progress=progress)


def of_data_set(
    base: Base, name: str, window: int, most: int | None, progress: Progress = silent
) -> torch.Tensor:
    """The first `most` tokens of a Hub data set's training split, streamed, as windows.

    Documents are the text of its rows, put one after the other with the tokenizer's end token
    between. Raises `SurgeryError`.
    """
    load_dataset = require("datasets", "Reading a data set").load_dataset
    path, _, part = name.partition(":")
    progress("Reaching the data set", 0, 0)
    with reading(path, "text that the base writes needs none"):
        rows = load_dataset(path, part or None, split="train", streaming=True)
        texts = _documents(rows, path)
        return _packed(base, texts, window, most or _MOST, joined=True, progress=progress)


def sampled(
    base: Base,
    count: int,
    window: int,
    seed: int,
    progress: Progress = silent,
    seconds: float | None = None,
) -> torch.Tensor:
    """`count` windows that the base itself writes, (count, window): data-free distillation as in
    LLM-QAT (arXiv 2305.17888). The first token of each is a word drawn evenly from the vocabulary,
    the next few are the likeliest ones, all others are drawn from the base's distribution as it is.
    With `seconds` it is as many of them as are written in about so long, and a few at least.
    """
    base.load(progress)
    words = _words(base)
    random = torch.Generator().manual_seed(seed)
    limit = base.context
    if limit and window > limit:
        raise SurgeryError(f"Windows of {window:,} tokens are longer than the context, {limit:,}.")
    most, begun = rows_at_once(base, window), time.monotonic()
    found: list[torch.Tensor] = []
    done = 0

    def written(tokens: int) -> None:  # of the windows that are being written
        if seconds is None:
            progress(_WRITING, done * window + tokens, count * window)
        else:
            progress(_WRITING, min(time.monotonic() - begun, seconds), seconds)

    while done < count:
        rows = min(most, count - done)
        if seconds is not None:  # twice as many each time, as far as the time that is left allows
            spent = time.monotonic() - begun
            left = (seconds - spent) * done / spent if done else _ROWS_FIRST
            if left < min(_ROWS_FIRST, rows):
                break
            rows = min(rows, max(done, _ROWS_FIRST), int(left))
        first = words[torch.randint(len(words), (rows, 1), generator=random)]
        found.append(_continued(base, first, window, random, written))
        done += rows
    return torch.cat(found).to(torch.int32)


def _continued(
    base: Base,
    first: torch.Tensor,
    window: int,
    random: torch.Generator,
    written: Callable[[int], None],
) -> torch.Tensor:
    """Rows of one token, (rows, 1), written on to (rows, window). `written` is told how many tokens
    there are."""
    model = base.model
    device = model.get_input_embeddings().weight.device
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
        written((place + 1) * len(first))
    return torch.cat(rows, 1)


def _words(base: Base) -> torch.Tensor:
    """Tokens that a text may begin with: those that read as letters, or any if there are few."""
    rows = base.known_tokens
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


def _rows(path: Path) -> Iterator[dict]:
    """The rows of a file of JSON Lines."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict):
                    raise SurgeryError(
                        f"Line {number:,} of {path.name} is no row of JSON: each line has to be an "
                        'object such as {"text": "…"}.'
                    )
                yield row
    except OSError as error:
        raise SurgeryError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise SurgeryError(f"{path} is no text in UTF-8.") from error


def _documents(rows: Iterable[dict], name: str) -> Iterator[str]:
    """The text of each row that has any."""
    column = None
    for row in rows:
        column = column or text_column(row)
        if column is None:
            known = ", ".join(islice(row, 20))
            raise SurgeryError(f"No column of {name} is called text: it has {known}.")
        if isinstance(found := row.get(column), str) and found.strip():
            yield found


def _packed(
    base: Base,
    texts: Iterable[str],
    window: int,
    most: int | None,
    *,
    joined: bool,
    progress: Progress,
) -> torch.Tensor:
    tokenizer = base.tokenizer
    end = [tokenizer.eos_token_id] if joined and tokenizer.eos_token_id is not None else []
    if end and end[0] >= base.known_tokens:
        end = []
    ids: list[int] = []
    parts: list[torch.Tensor] = []
    count, room = 0, None if most is None else -(-most // window)
    progress(_READING, 0, most or 0)
    for text in texts:
        if any("\ud800" <= c <= "\udfff" for c in text):  # bytes that are no UTF-8 come as these
            raise SurgeryError("The text holds bytes that are no text: write it in UTF-8.")
        ids += tokenizer(text, add_special_tokens=False)["input_ids"] + end
        whole = len(ids) // window
        if whole:
            parts.append(torch.tensor(ids[: whole * window], dtype=torch.int32).view(-1, window))
            ids = ids[whole * window :]
            count += whole
            progress(_READING, count * window, most or 0)
        if room is not None and count >= room:
            break
    if not (parts or ids):
        raise SurgeryError("The text is empty: give a few pages of it.")
    if not parts:
        raise SurgeryError(
            f"The text is shorter than one window: it has {len(ids):,} tokens, and a window takes "
            f"{window:,}. Give more, or choose a shorter window."
        )
    found = torch.cat(parts)[:room]
    if int(found.max()) >= base.known_tokens:
        base.check_tokens(found.flatten().tolist())
    return found
