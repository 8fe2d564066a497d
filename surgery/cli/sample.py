"""Options for the text to measure on, and the sample they select."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.errors import SurgeryError

if TYPE_CHECKING:
    from surgery.analysis import Sample
    from surgery.base import Base
    from surgery.progress import Progress

TextOption = Annotated[
    Path | None, typer.Option("--text", metavar="FILE", help="Measure on the text of this file.")
]
KindOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="Measure on a text of the project: prose (the default), code, facts or dialogue.",
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:SPLIT[:COLUMN]]",
        help="Measure on the first rows of a Hub data set, such as org/name:test:text.",
    ),
]
WindowOption = Annotated[
    int | None, typer.Option(help="Sequence length in tokens; 256 by default.")
]
LimitOption = Annotated[int, typer.Option(help="Maximum number of tokens.")]
LIMIT = 4096


def read_sample(
    base: Base,
    text: Path | None,
    kind: str | None,
    dataset: str | None,
    window: int | None,
    limit: int,
    progress: Progress,
) -> tuple[Sample, str]:
    """(sample, its description). Raises `SurgeryError`."""
    from surgery import texts
    from surgery.analysis import Sample

    if sum(x is not None for x in (text, kind, dataset)) > 1:
        raise SurgeryError("Choose one text: --text, --kind or --dataset.")
    words: str | list[str]
    if text is not None:
        try:
            words, name = text.expanduser().read_text(encoding="utf-8"), f"the text {text}"
        except UnicodeDecodeError as error:
            raise SurgeryError(f"{text} is not text in UTF-8.") from error
        except OSError as error:
            raise SurgeryError(f"{text} can't be read: {error.strerror or error}.") from error
    elif dataset is not None:
        place, _, rest = dataset.partition(":")
        split, _, column = rest.partition(":")
        rows = max(16, limit // 64)
        words = texts.from_dataset(place, split or "train", column or None, rows, progress)
        name = f"the data set {dataset}"
    else:
        kind = kind or texts.DEFAULT
        words, name = texts.get(kind), f"the project's own text “{kind}”"
    sample = Sample.of(base, words, window, limit)
    return sample, name + (f" (its first {limit:,} tokens)" if sample.truncated else "")
