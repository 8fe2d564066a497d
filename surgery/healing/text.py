"""Training text as windows of tokens, from a file, a data set, or the base itself.

All of it is made before the first step, so that a step reads the same windows however often a run
is stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers.generation.utils import ALL_CACHE_NAMES

from surgery.architecture.inspect.layer_list import embedding_table
from surgery.base import Base
from surgery.compute.contexts import many_rows, precise
from surgery.compute.narrow_products import narrow_products
from surgery.errors import BaseError, SurgeryError
from surgery.generation.preallocated_cache import preallocate
from surgery.memory.out_of_memory import memory_explained
from surgery.optional import require
from surgery.plan import Plan
from surgery.progress import Progress, silent
from surgery.texts import python_library
from surgery.texts.dataset import reading, text_column
from surgery.texts.default_text import DESCRIPTIONS, MIXED, OWN, PYTHON

from .settings import Settings
from .time_budget import Writing

_ROWS = 96  # windows sampled side by side: a hundred cost half of what 48 do, per token
_ROWS_UNKNOWN = 48  # the same, for models whose cache size is unknown
_ROWS_FIRST = 8  # the same, until its duration is known
_MORE = 4  # times the rows written before: 32 rows take hardly longer than 8
_CACHE = 3_000_000_000  # largest cache, in bytes
_MOST_SAMPLED = 1 << 18  # tokens sampled by default, at most
_GREEDY = 4  # tokens after the first that are the most likely ones
_BLOCK = 256  # tokens of which one is drawn
_BELOW_ONE = 1 - 1e-12  # so that rounding can't lead past the last weight
_MOST = 1 << 22  # tokens read of a data set if the number of steps is unknown
_CHUNK = 1 << 18  # characters of a file tokenised at a time
_ROWS_SUFFIXES = (".jsonl", ".ndjson")  # files of rows, as a data set has them
_PIECE = 256  # most tokens of one piece of the library
_CHARACTERS = 16  # of a piece per token: more than those of any piece on average
_READING = "Reading the text"
_WRITING = "The base writes text"


def read(
    base: Base,
    settings: Settings,
    progress: Progress = silent,
    writing: Writing | None = None,
    own: torch.Tensor | None = None,
) -> torch.Tensor:
    """The text of these settings as windows of tokens, (count, window). If the base writes it and
    `writing` is given, as much as that says, after the windows `own` that it has written before.
    Raises `SurgeryError`."""
    s = settings
    needed = None if s.steps is None else s.steps * s.tokens_per_step
    if s.text:
        return of_file(base, s.text, s.window, needed, progress)
    if s.data:
        return of_data_set(base, s.data, s.window, needed, progress)
    # Text that is read again is memorised (docs/explanation/healing.md): read no more than once.
    count = max(1, min(needed or _MOST_SAMPLED, _MOST_SAMPLED) // s.window)
    kind = _default_text(base, s)
    if kind == PYTHON:
        return of_library(base, count, s.window)
    count = max(1, s.sampled_tokens // s.window) if s.sampled_tokens else count
    if kind == MIXED and not s.sampled_tokens:
        count = -(-count // 2)
    before = own[:count] if own is not None else torch.empty(0, s.window, dtype=torch.int32)
    # With another seed, since windows of the same seed begin with the same words.
    seed = s.seed + bool(len(before))
    new = sampled(base, count - len(before), s.window, seed, progress, writing)
    own = torch.cat([before, new])
    return own if kind == OWN else alternating(own, of_library(base, len(own), s.window))


def own_windows(base: Base, settings: Settings, written: torch.Tensor | None) -> torch.Tensor:
    """What the base has written already, cut into this run's windows, (count, window). Empty if the
    run doesn't train on the base's text, or if its amount is given."""
    s = settings
    if written is None or not s.writes_in_time or _default_text(base, s) == PYTHON:
        return torch.empty(0, s.window, dtype=torch.int32)
    tokens = written.flatten().to("cpu", torch.int32)
    return tokens[: len(tokens) // s.window * s.window].view(-1, s.window)


def kinds(base: Base, settings: Settings) -> int:
    """How many windows a run reads for each one that the base writes."""
    return 2 if _default_text(base, settings) == MIXED else 1


def described(base: Base, settings: Settings) -> str:
    """What the training text is, in words."""
    if settings.text:
        return "a text file"
    if settings.data:
        return f"the data set {settings.data}"
    return DESCRIPTIONS[_default_text(base, settings)]


def _default_text(base: Base, settings: Settings) -> str:
    """The kind of text where none is given. Without a tokenizer, or the source of Python's library,
    only the base can write one."""
    kind = settings.default_text
    if kind == MIXED and not (base.has_tokenizer and python_library.files()):
        return OWN
    return kind


def writing_bytes(base: Base, settings: Settings) -> int:
    """Bytes of the KV cache, in the dtype of the weights, while the base writes the text; 0 if it
    writes none."""
    s = settings
    if s.text or s.data or s.default_text == PYTHON:
        return 0
    return rows_at_once(base, s.window) * s.window * _cached(base)


def rows_at_once(base: Base, window: int) -> int:
    """How many windows the base writes side by side. It depends on the model alone, so that the
    same settings give the same text on any machine."""
    each = _cached(base) * window
    return max(1, min(_ROWS, _CACHE // each)) if each else _ROWS_UNKNOWN


def _cached(base: Base) -> int:
    """Bytes of cache per token; 0 if that is unknown, or the cache doesn't grow."""
    return base.preview(Plan.whole(base.depth)).kv_bytes_per_token or 0


def of_file(
    base: Base, path: str, window: int, most: int | None = None, progress: Progress = silent
) -> torch.Tensor:
    """The text of a file as windows, (count, window); a shorter rest is dropped. In JSON Lines
    (`.jsonl`) it is the text of the rows, as in a data set."""
    place = Path(path).expanduser()
    if place.suffix.lower() in _ROWS_SUFFIXES:
        rows = _documents(_rows(place), place.name)
        return _packed(base, rows, window, most, joined=True, progress=progress)
    return _packed(base, _chunks(place), window, most, joined=False, progress=progress)


def of_texts(
    base: Base, texts: Iterable[str], window: int, most: int | None = None
) -> torch.Tensor:
    """Several texts, joined by the tokenizer's end token, as windows, (count, window)."""
    return _packed(base, texts, window, most, joined=True, progress=silent)


def of_library(base: Base, count: int, window: int) -> torch.Tensor:
    """Source code of Python's library as windows, (count, window): a short one of each module as
    long as there are enough, as many kinds of text matter more than much text. Raises
    `SurgeryError`."""
    pieces = python_library.pieces(min(window, _PIECE) * _CHARACTERS)
    each = -(-window // _PIECE)
    return torch.cat(
        [of_texts(base, islice(pieces, each), window, window) for _ in range(max(1, count))]
    )


def alternating(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The windows of two texts by turns."""
    both = min(len(one), len(other))
    mixed = torch.stack([one[:both], other[:both]], 1).flatten(0, 1)
    return torch.cat([mixed, one[both:], other[both:]])


def of_data_set(
    base: Base, name: str, window: int, most: int | None, progress: Progress = silent
) -> torch.Tensor:
    """The first `most` tokens of a Hub data set's training split, streamed, as windows.

    Documents are the text of its rows, joined by the tokenizer's end token. Raises `SurgeryError`.
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
    writing: Writing | None = None,
) -> torch.Tensor:
    """`count` windows that the base itself writes, (count, window): data-free distillation as in
    LLM-QAT (arXiv 2305.17888). The first token of each is a word drawn uniformly from the
    vocabulary, the next few are the most likely ones, all others are drawn from the base's
    unmodified distribution. With `writing`, as many as that says, and no more than `count`.
    """
    base.load(progress)
    random = torch.Generator().manual_seed(seed)
    limit = base.context
    if limit and window > limit:
        raise SurgeryError(
            f"Sequences of {window:,} tokens are longer than the context of {limit:,}."
        )
    most, begun = rows_at_once(base, window), time.monotonic()
    batches = [torch.empty(0, window, dtype=torch.int64)]
    least = max(0, _ROWS_FIRST - writing.have) if writing else 0
    done, shown = 0, 0.0

    def wanted(tokens: int) -> int:  # windows in all, by the time that so many tokens have taken
        if writing is None:
            return count
        each = (time.monotonic() - begun) * window / tokens if tokens else 0.0
        return min(count, max(least, writing.windows(each)))

    def written(tokens: int) -> None:  # of the windows that are being written
        nonlocal shown
        tokens += done * window
        # The first tokens take longest, so the total grows: what is shown never goes back.
        shown = max(shown, tokens / max(tokens, wanted(tokens) * window))
        progress(_WRITING, tokens, round(tokens / shown))

    if not wanted(0):
        return batches[0].to(torch.int32)
    words = _words(base)
    while (left := wanted(done * window) - done) > 0:
        rows = min(most, left)
        if writing is not None:  # few first, to learn how long they take, then four times as many
            if done >= least and left < _ROWS_FIRST:
                break
            rows = min(rows, max(_MORE * done, _ROWS_FIRST))
        first = words[torch.randint(len(words), (rows, 1), generator=random)]
        with (
            narrow_products(rows),
            many_rows(base.model, rows),
            memory_explained("Choose a shorter sequence length."),
        ):
            batches.append(_continued(base, first, window, random, written))
        done += rows
    progress(_WRITING, done * window, done * window)
    return torch.cat(batches).to(torch.int32)


def _continued(
    base: Base,
    first: torch.Tensor,
    window: int,
    random: torch.Generator,
    written: Callable[[int], None],
) -> torch.Tensor:
    """Rows of one token, (rows, 1), continued to (rows, window). `written` is called with the
    number of tokens so far."""
    model = base.model
    device = embedding_table(model).device
    rows, fed = [first], first
    cache: dict[str, Any] = {}
    for place in range(1, window):
        with torch.inference_mode():
            output = model(input_ids=fed.to(device), use_cache=True, **cache)
        if not output.logits.shape[1]:
            raise BaseError(f"{base.name} can't write text: it returns no logits for one token.")
        logits = output.logits[:, -1].float()
        highest, likeliest = logits.max(-1, keepdim=True)
        if not highest.isfinite().all():
            raise BaseError(f"{base.name} can't write text: its output is not finite.")
        new = likeliest if place <= _GREEDY else _drawn((logits - highest).exp(), random)
        rows.append(new.cpu())
        name = next((n for n in ALL_CACHE_NAMES if output.get(n) is not None), None)
        fed, cache = (new, {name: output[name]}) if name else (torch.cat(rows, 1), {})
        if name and place == 1:
            preallocate(output[name], window)
        written((place + 1) * len(first))
    return torch.cat(rows, 1)


def _drawn(weights: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """A token for each row of weights, (rows, 1), each as likely as its share of the row.

    First a block of tokens is drawn, then one of them: several times faster than
    `torch.multinomial`, which draws a number for every token.
    """
    blocks = F.pad(weights, (0, -weights.shape[1] % _BLOCK)).unflatten(1, (-1, _BLOCK))
    points = torch.rand(2, len(weights), 1, generator=random, dtype=torch.float64)
    block = _at(blocks.sum(-1), points[0])
    row = torch.arange(len(weights), device=weights.device)[:, None]
    return block * _BLOCK + _at(blocks[row, block].squeeze(1), points[1])


def _at(weights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The index in each row of weights that a point of [0, 1) falls on, (rows, 1)."""
    sums = precise(weights).cumsum(-1)
    points = points.to(sums.device).clamp_max(_BELOW_ONE) * sums[:, -1:]
    # The first sum above the point: right=True passes over weights of zero.
    return torch.searchsorted(sums, points, right=True).to(weights.device)


def _words(base: Base) -> torch.Tensor:
    """Tokens that a text may begin with: those made of letters, or any if there are few."""
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
        raise SurgeryError(f"{path} is not text in UTF-8.") from error


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
                        f"Line {number:,} of {path.name} is not a JSON object: each line must be "
                        'one, such as {"text": "…"}.'
                    )
                yield row
    except OSError as error:
        raise SurgeryError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise SurgeryError(f"{path} is not text in UTF-8.") from error


def _documents(rows: Iterable[dict], name: str) -> Iterator[str]:
    """The text of each row that has any."""
    column = None
    for row in rows:
        column = column or text_column(row)
        if column is None:
            known = ", ".join(islice(row, 20))
            raise SurgeryError(
                f"{name} has no column with text that can be recognised: its columns are {known}."
            )
        if isinstance(text := row.get(column), str) and text.strip():
            yield text


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
            raise SurgeryError("The text contains bytes that aren't valid UTF-8: save it as UTF-8.")
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
            f"The text is shorter than one sequence: it has {len(ids):,} tokens, and a sequence "
            f"takes {window:,}. Give more text, or choose a shorter sequence length."
        )
    windows = torch.cat(parts)[:room]
    if int(windows.max()) >= base.known_tokens:
        base.check_tokens(windows.flatten().tolist())
    return windows
