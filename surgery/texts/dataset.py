"""Rows of a data set on the Hub, streamed: as many as are asked for, and none of its code.

Knows the `datasets` library, which reads Parquet, JSON, CSV and text and no longer runs the scripts
that data sets used to bring along.
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

_COLUMNS = ("text", "content", "document", "article")  # what the text is usually called
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
    """The texts of the first `limit` rows of "org/name" that have any, as the data set orders them.

    Without `column` it is the one called text, content, document or article, or the only one that
    holds text. `config` is the data set's subset. Nothing is downloaded whole. Raises
    `SurgeryError` where it can't be reached or holds no such text.
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
    # What exists here would be read from here, and a bare word may name a way of reading.
    if not _HUB_ID.fullmatch(name) or ".." in name or Path(name).exists():
        raise SurgeryError(f"“{name[:80]}” is no data set on the Hub: write it as org/name.")


@contextmanager
def reading(name: str, instead: str) -> Iterator[None]:
    """Within, what goes wrong with a data set is a `SurgeryError` that says what to do; `instead`
    is what needs no network."""
    try:
        yield
    except (SurgeryError, Cancelled):
        raise
    except Exception as error:  # no network, no such name, a gate, a format: many, and all outside
        said = " ".join(str(error).split())[:200]
        raise SurgeryError(
            f"The data set {name[:80]} can't be read ({type(error).__name__}: {said}). "
            f"Check its name, split and subset, and the network; {instead}."
        ) from error


def texts_of(
    rows: Iterable[dict], name: str, column: str | None, limit: int, progress: Progress = silent
) -> list[str]:
    """The same, of rows that are there."""
    found: list[str] = []
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
            found.append(row[column])
            progress(_WHAT, len(found), limit)
        if len(found) >= limit:
            break
    if not found:
        raise SurgeryError(f"This part of {name} holds no text.")
    return found


def text_column(row: dict) -> str | None:
    """The column of a row that has the text, by its usual names or as the only one that holds any;
    None where that isn't plain."""
    texts = [key for key, value in row.items() if isinstance(value, str)]
    usual = [key for key in _COLUMNS if key in texts]
    if usual or len(texts) == 1:
        return (usual or texts)[0]
    return None
