"""`scan`: the importance of each layer."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.markup import escape

from surgery.analysis import DEFAULT, SCORES
from surgery.errors import SurgeryError
from surgery.progress import silent

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    JsonOption,
    err,
    open_base,
    out,
    print_json,
    progress_bar,
)
from ..sample import (
    LIMIT,
    DatasetOption,
    KindOption,
    LimitOption,
    TextOption,
    WindowOption,
    read_sample,
)

_EXTRA = [key for key in SCORES if key not in DEFAULT]


def scan(
    base: BaseArgument,
    text: TextOption = None,
    kind: KindOption = None,
    dataset: DatasetOption = None,
    window: WindowOption = None,
    limit: LimitOption = LIMIT,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Scores to compute: {', '.join(DEFAULT)} (these by default), "
            f"{', '.join(_EXTRA)}. May be repeated.",
        ),
    ] = None,
    within: Annotated[
        str, typer.Option(metavar="I:J", help="Span of layers that the repeat map covers.")
    ] = "",
    compute_dtype: ComputeDtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the importance of each layer.

    It shows where to cut and what to repeat. Results are cached, so an interrupted scan resumes.
    `accelerate launch -m surgery scan …` splits the work between processes.
    """
    from surgery.analysis import report
    from surgery.analysis.distributed import distributed_scan, is_first, launched

    if launched() and not is_first():
        err.quiet = out.quiet = True  # only the first process prints
    opened = open_base(base)
    with progress_bar() as progress:
        sample, name = read_sample(opened, text, kind, dataset, window, limit, progress)
        scores, span = tuple(score or DEFAULT), _span(within)
        if launched():
            report_to = progress if is_first() else silent
            result = distributed_scan(
                opened, sample, scores=scores, within=span, progress=report_to
            )
        else:
            from surgery.analysis import scan as measure

            result = measure(opened, sample, scores=scores, within=span, progress=progress)
    if launched() and not is_first():
        return
    if as_json:
        print_json(report.scan_json(opened, name, result))
        return
    out.print(f"{escape(opened.name)}, {escape(name)}")
    for part in report.scan_tables(opened, result):
        out.print(part)


def _span(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    if not (m := re.fullmatch(r"\s*(\d{1,6})\s*:\s*(\d{1,6})\s*", text)):
        raise SurgeryError(f"“{text[:40]}” is not a span of layers: write it as 8:20.")
    return int(m[1]), int(m[2])
