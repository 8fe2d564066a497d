"""The commands that measure: where to cut, and what the cut did.

Knows arguments and output, as `cli` does, whose app it belongs to; the rest is the library's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from surgery.errors import SurgeryError
from surgery.progress import silent

from .main import (
    _MORE,
    BaseArgument,
    JsonOption,
    PlanArgument,
    WithOption,
    _open,
    _operation,
    _print_json,
    _progress,
    app,
    err,
    out,
)

if TYPE_CHECKING:
    from surgery.analysis import Sample
    from surgery.base import Base

TextOption = Annotated[
    Path | None, typer.Option("--text", metavar="FILE", help="Measure on this text.")
]
KindOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="Measure on one of the project's own texts: prose (the default), code, facts, "
        "dialogue.",
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:SPLIT[:COLUMN]]",
        help="Measure on a data set of the Hub, such as org/name:test:text; its first rows are "
        "streamed.",
    ),
]
WindowOption = Annotated[
    int | None, typer.Option(help="Tokens that the model sees at once; 256 unless told.")
]
LimitOption = Annotated[int, typer.Option(help="Tokens in all, at most.")]
_LIMIT = 4096
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@app.command(epilog=_MORE)
def scan(
    base: BaseArgument,
    text: TextOption = None,
    kind: KindOption = None,
    dataset: DatasetOption = None,
    window: WindowOption = None,
    limit: LimitOption = _LIMIT,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Which scores: block_influence, angular, drop_one, repeat_one (these unless "
            "told), repeat_map, taylor. May be given several times.",
        ),
    ] = None,
    within: Annotated[
        str, typer.Option(metavar="I:J", help="The span of layers of the repeat map.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show what each layer is worth: where to cut, what to repeat.

    What was measured is kept, so a scan that is stopped goes on where it was. `accelerate launch
    -m surgery scan …` shares the work among processes.
    """
    from surgery.analysis import DEFAULT, report
    from surgery.analysis.distributed import is_first, launched, spread_scan

    if launched() and not is_first():
        err.quiet = out.quiet = True  # one of them speaks
    found = _open(base)
    with _progress() as progress:
        sample, name = _sample(found, text, kind, dataset, window, limit, progress)
        what = {"scores": tuple(score or DEFAULT), "within": _span(within)}
        if launched():
            heard = progress if is_first() else silent
            result = spread_scan(found, sample, **what, progress=heard)
        else:
            from surgery.analysis import scan as measure

            result = measure(found, sample, **what, progress=progress)
    if launched() and not is_first():
        return
    if as_json:
        _print_json(report.scan_json(found, name, result))
        return
    out.print(f"{escape(found.name)}, {escape(name)}")
    for part in report.scan_tables(found, result):
        out.print(part)


@app.command(epilog=_MORE)
def suggest(
    base: BaseArgument,
    layers: Annotated[int | None, typer.Option(help="To this many layers.")] = None,
    parameters: Annotated[
        str | None, typer.Option(metavar="P", help="To at most so many parameters, as in 110M.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="block, influence, drop_one, greedy, random; to grow: repeat_one, repeat_block, "
            "random. All unless told; may be given several times.",
        ),
    ] = None,
    protect: Annotated[
        tuple[int, int],
        typer.Option(metavar="FIRST LAST", help="Layers at the ends that stay as they are."),
    ] = (1, 1),
    seed: Annotated[int, typer.Option(help="Of the random plan.")] = 0,
    text: TextOption = None,
    kind: KindOption = None,
    dataset: DatasetOption = None,
    window: WindowOption = None,
    limit: LimitOption = _LIMIT,
    as_json: JsonOption = False,
) -> None:
    """Propose plans for a size, each with its measured cost.

    A random plan of the same size stands beside them as the control.
    """
    from surgery.analysis import measured_score, report
    from surgery.analysis import suggest as find
    from surgery.plan import Plan

    found = _open(base)
    with _progress() as progress:
        sample, name = _sample(found, text, kind, dataset, window, limit, progress)
        plans = find(
            found,
            sample,
            layers=layers,
            parameters=None if parameters is None else _count(parameters),
            methods=method or None,
            protect=protect,
            seed=seed,
            progress=progress,
        )
        whole = measured_score(found, Plan.whole(found.depth), sample, progress)
    if as_json:
        _print_json(report.suggest_json(found, name, whole, plans))
        return
    out.print(f"{escape(found.name)}, {escape(name)}")
    for part in report.suggest_tables(found, whole, plans):
        out.print(part)


@app.command(epilog=_MORE)
def compare(
    base: BaseArgument,
    plan: PlanArgument,
    with_: WithOption = None,
    text: TextOption = None,
    kind: KindOption = None,
    dataset: DatasetOption = None,
    window: WindowOption = None,
    limit: LimitOption = _LIMIT,
    as_json: JsonOption = False,
) -> None:
    """Measure what a plan did to a base, token by token.

    Perplexity, divergence, and which tokens it hurt most.
    """
    from surgery.analysis import compare as run
    from surgery.analysis import report

    found, wanted, (made, flat) = _operation(base, plan, with_)
    with _progress() as progress:
        made.load(progress)
        sample, name = _sample(found, text, kind, dataset, window, limit, progress)
        against = None if made is found else found
        result = run(made, flat, sample, progress, against=against)
    if as_json:
        _print_json(report.compare_json(found, wanted, name, result))
        return
    out.print(f"{escape(found.name)}  {escape(str(wanted))}  ({wanted.describe()})")
    out.print(f"{escape(name)}\n")
    for part in report.compare_tables(wanted, result):
        out.print(part)


def _sample(
    base: Base,
    text: Path | None,
    kind: str | None,
    dataset: str | None,
    window: int | None,
    limit: int,
    progress,
) -> tuple[Sample, str]:
    """What to measure on, and what it is called."""
    from surgery import texts
    from surgery.analysis import Sample

    if sum(x is not None for x in (text, kind, dataset)) > 1:
        raise SurgeryError("Name one text: --text, --kind or --dataset.")
    if text is not None:
        try:
            words, name = text.expanduser().read_text(encoding="utf-8"), f"the text {text}"
        except UnicodeDecodeError as error:
            raise SurgeryError(f"{text} is no text in UTF-8.") from error
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


def _span(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    if not (m := re.fullmatch(r"\s*(\d{1,6})\s*:\s*(\d{1,6})\s*", text)):
        raise SurgeryError(f"“{text[:40]}” is no span: write it as 8:20.")
    return int(m[1]), int(m[2])


def _count(text: str) -> int:
    """125,000,000, 125M or 1.2B."""
    m = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmb]?)", text.replace(",", "").strip().lower())
    if not m:
        raise SurgeryError(f"“{text[:40]}” is no number of parameters: write 125000000 or 125M.")
    return round(float(m[1]) * _SIZES[m[2]])
