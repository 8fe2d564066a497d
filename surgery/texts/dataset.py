"""Stream the first rows of a data set on the Hub.

The `datasets` library reads Parquet, JSON, CSV and text, and doesn't run a data set's own code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from surgery.errors import SurgeryError
from surgery.optional import require
from surgery.progress import Cancelled, Progress, silent

_COLUMNS = ("text", "content", "document", "article")  # usual names of the text
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WHAT = "Reading the data set"


def from_dataset(
    name: str,
    split: str = "train",
    column: str | None = None,
    limit: int = 64,
    progress: Progress = silent,
    *,
    config: str | None = None,
) -> list[str]:
    """The texts of the first `limit` rows of "org/name" that aren't empty, in order: fewer if the
    split has fewer.

    The default `column` is the one called text, content, document or article, or else the only one
    with text. `config` is the data set's subset. Rows are streamed, so the data set isn't
    downloaded whole; `progress` counts them. Needs the package `datasets`. Raises `SurgeryError` if
    the data set can't be read or has no such text.
    """
    check_name(name)
    progress(_WHAT, 0, limit)
    with reading(name, "the project's own texts need none"):
        rows = require("datasets", "Reading a data set").load_dataset(
            name, config, split=split, streaming=True
        )
        return texts_of(rows, name, column, limit, progress)


def check_name(name: str) -> None:
    """Raise `SurgeryError` for anything but "org/name"."""
    # `datasets` would read an existing local path, and takes some single words for loaders.
    if not _HUB_ID.fullmatch(name) or ".." in name or Path(name).exists():
        raise SurgeryError(f"“{name[:80]}” is not a data set on the Hub: write it as org/name.")


@contextmanager
def reading(name: str, instead: str) -> Iterator[None]:
    """Within, errors of reading a data set become a `SurgeryError` that says what to do; `instead`
    names what needs no network."""
    try:
        yield
    except (SurgeryError, Cancelled):
        raise
    except Exception as error:  # network, name, gate, format: many kinds from many libraries
        message = " ".join(str(error).split())[:200]
        raise SurgeryError(
            f"The data set {name[:80]} can't be read ({type(error).__name__}: {message}). "
            f"Check its name, split and subset, and the network; {instead}."
        ) from error


def texts_of(
    rows: Iterable[dict], name: str, column: str | None, limit: int, progress: Progress = silent
) -> list[str]:
    """The texts of the first `limit` of these rows that aren't empty. Raises `SurgeryError`."""
    texts: list[str] = []
    for row in rows:
        column = column or text_column(row)
        if column is None:
            known = ", ".join(islice(row, 20))
            raise SurgeryError(f"Say which column of {name} holds the text: it has {known}.")
        if column not in row:
            raise SurgeryError(
                f"The data set {name} has no column “{column[:40]}”: it has {', '.join(row)}."
            )
        if not isinstance(row[column], str):
            raise SurgeryError(f"The column “{column[:40]}” of {name} holds no text.")
        if row[column].strip():
            texts.append(row[column])
            progress(_WHAT, len(texts), limit)
        if len(texts) >= limit:
            break
    if not texts:
        raise SurgeryError(f"This part of {name} holds no text.")
    return texts


def text_column(row: dict) -> str | None:
    """The column with the text, by its usual names or as the only one with text; None if neither
    decides."""
    texts = [key for key, value in row.items() if isinstance(value, str)]
    usual = [key for key in _COLUMNS if key in texts]
    if usual or len(texts) == 1:
        return (usual or texts)[0]
    return None
