"""Rows of a data set on the Hub, streamed: as many as are asked for, and none of its code.

Knows the `datasets` library, which reads Parquet, JSON, CSV and text and no longer runs the scripts
that data sets used to bring along.
"""

from __future__ import annotations

from itertools import islice

from ..errors import SurgeryError
from ..progress import Cancelled, Progress, silent

_COLUMNS = ("text", "content", "document", "article")  # what the text is usually called


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
    what = "Reading the data set"
    progress(what, 0, limit)
    try:
        import datasets

        rows = datasets.load_dataset(name, config, split=split, streaming=True)
        found: list[str] = []
        for row in rows:
            if column is None:
                column = _text_column(name, row)
            if column not in row:
                raise SurgeryError(
                    f"The data set {name} has no column “{column[:40]}”: it has {', '.join(row)}."
                )
            if not isinstance(row[column], str):
                raise SurgeryError(f"The column “{column[:40]}” of {name} holds no text.")
            if row[column].strip():
                found.append(row[column])
                progress(what, len(found), limit)
            if len(found) >= limit:
                break
    except (SurgeryError, Cancelled):
        raise
    except Exception as error:  # no network, no such name, a gate, a format: many, and all outside
        said = " ".join(str(error).split())[:200]
        raise SurgeryError(
            f"The data set {name[:80]} can't be read ({type(error).__name__}: {said}). "
            "Check its name, split and subset, and the network; the project's own texts need none."
        ) from error
    if not found:
        raise SurgeryError(f"The split {split} of {name} holds no text.")
    return found


def _text_column(name: str, row: dict) -> str:
    texts = [key for key, value in row.items() if isinstance(value, str)]
    usual = [key for key in _COLUMNS if key in texts]
    if usual or len(texts) == 1:
        return (usual or texts)[0]
    raise SurgeryError(
        f"Say which column of {name} holds the text: it has {', '.join(islice(row, 20))}."
    )
