"""Training text as windows of tokens, from a file, a data set, or the base itself.

All of it is made before the first step, so that a step reads the same windows however often a run
is stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch

from surgery.base import Base
from surgery.errors import SurgeryError
from surgery.optional import require
from surgery.progress import Progress, silent
from surgery.texts import python_library
from surgery.texts.dataset import check_name, reading, text_column
from surgery.texts.default_text import DESCRIPTIONS, MIXED, OWN, PYTHON

from .own_text import sampled
from .settings import Settings
from .time_budget import Writing

_MOST_SAMPLED = 1 << 18  # tokens sampled by default, at most
_MOST = 1 << 22  # tokens read of a data set if the number of steps is unknown
_CHUNK = 1 << 18  # characters of a file tokenized at a time
_ROWS_SUFFIXES = (".jsonl", ".ndjson")  # files of rows, as a data set has them
_PIECE = 256  # most tokens of one piece of the library
_CHARACTERS = 16  # of a piece per token: more than those of any piece on average
_READING = "Reading the text"


def check_length(base: Base, settings: Settings) -> None:
    """Raise `SurgeryError` for sequences that are longer than the base's context."""
    if base.context and settings.window > base.context:
        raise SurgeryError(
            f"Sequences of {settings.window:,} tokens are longer than the context of "
            f"{base.context:,}: choose a shorter sequence length."
        )


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
    """The kind of text where none is given."""
    return possible(base, settings.default_text)


def possible(base: Base, kind: str) -> str:
    """The kind of text, or what is possible in place of a mixed one: without a tokenizer, or the
    source of Python's library, only the base can write one."""
    if kind == MIXED and not (base.has_tokenizer and python_library.files()):
        return OWN
    return kind


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
    path, _, part = name.partition(":")
    check_name(path)
    load_dataset = require("datasets", "Reading a data set").load_dataset
    progress("Reaching the data set", 0, 0)
    with reading(path, "text that the base writes needs none"):
        rows = load_dataset(path, part or None, split="train", streaming=True)
        texts = _documents(rows, path)
        return _packed(base, texts, window, most or _MOST, joined=True, progress=progress)


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
