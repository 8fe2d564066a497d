"""Options for the text to measure on, and the sample they select."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from surgery.errors import SurgeryError
from surgery.numbers import about, duration

from .common import err

if TYPE_CHECKING:
    from surgery.analysis import LossIncrease, Sample
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
        help="Measure on texts of a kind: prose (the default), code, facts or dialogue, written "
        "for this project; python-docs or python-library, which come with Python.",
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
    typer.Option(help="Maximum number of tokens; without it, as many as the precision requires."),
]
PrecisionOption = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENT",
        help="How precisely to know the cost, in percent of it; 10 by default, 40 for a scan.",
    ),
]
_LIMIT = 4096  # tokens to choose on, of a text that is given
_LONGEST = 1 << 20  # tokens for a precision
_STEP = 64  # tokens: machines that share a scan round differently, and have to take the same text

# Measures costs on a sample.
Measure = Callable[["Sample", "Progress"], Iterable["LossIncrease"]]


@dataclass(frozen=True)
class Text:
    """A text to measure on: its documents, a name for people, and the tokens of a window and in all
    that were asked for, if any. `short` is (its short text, the name of that), if it has one;
    `read` reads so many documents, where `words` may be only the first of them."""

    words: str | list[str]
    name: str
    window: int | None
    limit: int | None
    short: tuple[str, str] | None = None
    read: Callable[[int], list[str]] | None = None
    rows: int = 0  # how many documents were asked for

    def sample(self, base: Base, limit: int) -> tuple[Sample, str]:
        """(sample, its description), of at most `limit` tokens. Raises `SurgeryError`."""
        sample = self._all(base, limit)
        first = f" (its first {limit:,} tokens)" if sample.truncated else ""
        return sample, self.name + first

    def _all(self, base: Base, limit: int) -> Sample:
        """Documents are read until they have `limit` tokens, or there are no more."""
        from surgery.analysis import Sample

        words, rows = self.words, self.rows
        sample = Sample.of(base, words, self.window, limit)
        while self.read is not None and not sample.truncated and len(words) >= rows:
            rows = max(2 * rows, math.ceil(rows * limit / sample.tokens))
            words = self.read(rows)
            sample = Sample.of(base, words, self.window, limit)
        return sample

    def first(self, base: Base) -> tuple[Sample, str, bool]:
        """(sample of its short text or first tokens, its description, whether that is all of it).
        Raises `SurgeryError`."""
        from surgery.analysis import Sample
        from surgery.analysis.precision import PILOT

        if self.short is not None:
            words, name = self.short
            return Sample.of(base, words, self.window), name, False
        sample, name = self.sample(base, PILOT)
        return sample, name, not sample.truncated


def read_text(
    text: Path | None,
    kind: str | None,
    dataset: str | None,
    window: int | None,
    limit: int | None,
    progress: Progress,
    half: Half = "choose",
    precision: float | None = None,
) -> Text:
    """The text that the options name. Of the kinds it is one half. Raises `SurgeryError`."""
    from surgery import texts
    from surgery.analysis.precision import check_precision

    if sum(x is not None for x in (text, kind, dataset)) > 1:
        raise SurgeryError("Choose one text: --text, --kind or --dataset.")
    if limit is not None and precision is not None:
        raise SurgeryError(
            "Choose one: --precision determines the number of tokens, and so does --limit."
        )
    if precision is not None:
        check_precision(precision / 100)
    if text is not None:
        try:
            own = text.expanduser().read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SurgeryError(f"{text} is not text in UTF-8.") from error
        except OSError as error:
            raise SurgeryError(f"{text} can't be read: {error.strerror or error}.") from error
        return Text(own, f"the text {text}", window, limit)
    if dataset is not None:
        place, _, rest = dataset.partition(":")
        split, _, column = rest.partition(":")

        def read(rows: int) -> list[str]:
            return texts.from_dataset(place, split or "train", column or None, rows, progress)

        rows = max(16, (limit or _LIMIT) // 64)
        return Text(read(rows), f"the data set {dataset}", window, limit, read=read, rows=rows)
    kind = kind or texts.DEFAULT
    words = list(texts.documents(kind, half))
    short = (texts.get(kind), f"the short text “{kind}”") if half == "choose" else None
    return Text(words, f"the texts “{kind}”, the half to {half} on", window, limit, short)


def read_sample(
    base: Base,
    text: Path | None,
    kind: str | None,
    dataset: str | None,
    window: int | None,
    limit: int | None,
    progress: Progress,
) -> tuple[Sample, str]:
    """(sample to choose plans on, its description): of the kinds the short text, unless a limit
    asks for more. Raises `SurgeryError`."""
    found = read_text(text, kind, dataset, window, limit, progress)
    return _to_choose_on(base, found)


def _to_choose_on(base: Base, text: Text) -> tuple[Sample, str]:
    if text.short is not None and text.limit is None:
        sample, name, _ = text.first(base)
        return sample, name
    return text.sample(base, text.limit or _LIMIT)


def sized_sample(
    base: Base,
    text: Text,
    precision: float | None,
    measure: Measure,
    progress: Progress,
    *,
    default: float | None = None,
    share: float = 1.0,
) -> tuple[Sample, str]:
    """(sample, its description), with as many tokens as it takes to know costs to ± `precision`
    percent of themselves. Without one, it is the share `default`, and no more than `judging.TOKENS`
    are read.

    `measure` measures costs on a short sample first, to find out how many; `share` is its share of
    the work that is to be done. A limit fixes the number instead, and so does reading weights from
    disk. Says on stderr how many tokens it takes, and how long. Raises `SurgeryError`.
    """
    from surgery.analysis import precision as sizes
    from surgery.analysis.judging import TOKENS

    if text.limit is not None:
        return text.sample(base, text.limit)
    if base.reads_from_disk:
        by_default = precision is None and text.short is not None
        return _to_choose_on(base, text) if by_default else text.sample(base, TOKENS)
    wanted = (default or sizes.PRECISION) if precision is None else precision / 100
    most = TOKENS if precision is None else _LONGEST
    short, name, is_all = text.first(base)
    if is_all:
        return short, name
    size = sizes.size_of(short, measure, wanted, progress, base)
    if size.tokens is None or size.tokens <= short.tokens:
        return short, name
    # The first token of a window isn't scored.
    with_firsts = math.ceil(size.tokens * (1 + len(short) / short.tokens) / _STEP) * _STEP
    sample, name = text.sample(base, max(short.tokens, min(most, with_firsts)))
    takes = f"± {100 * wanted:g} % of the cost takes about {about(size.tokens):,} tokens"
    if sample.tokens < 0.95 * size.tokens:
        takes += f"; {sample.tokens:,} are read"
    if size.seconds:
        takes += f": about {duration(size.seconds / share * sample.tokens / size.tokens)}"
    err.print(f"[dim]{escape(takes)}.[/dim]")
    return sample, name


def read_halves(
    base: Base,
    text: Path | None,
    kind: str | None,
    dataset: str | None,
    window: int | None,
    limit: int | None,
    progress: Progress,
    precision: float | None = None,
) -> tuple[tuple[Sample, str], Text | tuple[Sample, str]]:
    """What to choose plans on, and what to judge them on. A text that is given is cut in the
    middle, so that no `precision` can be asked of it. Raises `SurgeryError`."""
    if precision is not None and (text is not None or dataset is not None):
        raise SurgeryError(
            "A text of your own is cut in the middle, and both halves are read whole: --precision "
            "is for the texts of a --kind."
        )
    sample, name = read_sample(base, text, kind, dataset, window, limit, progress)
    if text is None and dataset is None:
        other = read_text(None, kind, None, window, None, progress, "judge", precision)
        return (sample, name), other
    if len(sample) < 2:
        half = len(sample.windows[0]) // 2 + 2  # each may begin with a token of its own
        sample, name = read_sample(base, text, kind, dataset, half, limit, progress)
    first, second = sample.halves()
    return (first, f"{name}, its first half"), (second, f"{name}, its second half")
