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
    from surgery.texts import Half

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
LimitOption = Annotated[
    int | None,
    typer.Option(help="Maximum number of tokens; without it, as many as the command needs."),
]
_LIMIT = 4096  # tokens of a text that is given


def read_sample(
    base: Base,
    text: Path | None,
    kind: str | None,
    dataset: str | None,
    window: int | None,
    limit: int | None,
    progress: Progress,
    half: Half = "choose",
) -> tuple[Sample, str]:
    """(sample, its description). Of the project's own texts it is from one half: to choose on, the
    short text unless a limit says how much. Raises `SurgeryError`."""
    from surgery import texts
    from surgery.analysis import Sample
    from surgery.analysis.judging import TOKENS

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
        rows = max(16, (limit or _LIMIT) // 64)
        words = texts.from_dataset(place, split or "train", column or None, rows, progress)
        name = f"the data set {dataset}"
    else:
        kind = kind or texts.DEFAULT
        if half == "choose" and limit is None:
            words, name = texts.get(kind), f"the project's own text “{kind}”"
        else:
            words = list(texts.documents(kind, half))
            name = f"the project's own texts “{kind}”, the half to {half} on"
            limit = limit or TOKENS
    limit = limit or _LIMIT
    sample = Sample.of(base, words, window, limit)
    return sample, name + (f" (its first {limit:,} tokens)" if sample.truncated else "")


def read_halves(
    base: Base,
    text: Path | None,
    kind: str | None,
    dataset: str | None,
    window: int | None,
    limit: int | None,
    progress: Progress,
) -> tuple[tuple[Sample, str], tuple[Sample, str]]:
    """What to choose plans on, and what to judge them on: each with its description. A text that is
    given is cut in the middle. Raises `SurgeryError`."""
    if text is None and dataset is None:
        chosen = read_sample(base, text, kind, dataset, window, limit, progress)
        return chosen, read_sample(base, text, kind, dataset, window, None, progress, "judge")
    sample, name = read_sample(base, text, kind, dataset, window, limit, progress)
    if len(sample) < 2:
        half = len(sample.windows[0]) // 2 + 2  # each may begin with a token of its own
        sample, name = read_sample(base, text, kind, dataset, half, limit, progress)
    first, second = sample.halves()
    return (first, f"{name}, its first half"), (second, f"{name}, its second half")
