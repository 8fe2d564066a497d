"""`scan`: the importance of each layer."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

import typer
from rich.markup import escape

from surgery.analysis import DEFAULT, SCORES
from surgery.errors import SurgeryError
from surgery.plan import Plan
from surgery.progress import silent

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    FromDiskOption,
    JsonOption,
    err,
    open_base,
    out,
    print_disk_reads,
    print_json,
    progress_bar,
)
from ..sample import (
    DatasetOption,
    KindOption,
    LimitOption,
    PrecisionOption,
    TextOption,
    WindowOption,
    read_text,
    sized_sample,
)

_EXTRA = [key for key in SCORES if key not in DEFAULT]


def scan(
    base: BaseArgument,
    text: TextOption = None,
    kind: KindOption = None,
    dataset: DatasetOption = None,
    window: WindowOption = None,
    limit: LimitOption = None,
    precision: PrecisionOption = None,
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
    part: Annotated[
        str,
        typer.Option(
            metavar="K/N",
            help="Measure only part K of N, counted from 1. Run the command without it to see what "
            "all parts measured.",
        ),
    ] = "",
    compute_dtype: ComputeDtypeOption = None,
    from_disk: FromDiskOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the importance of each layer.

    It shows where to cut and what to repeat. Results are cached, so an interrupted scan resumes.
    `accelerate launch -m surgery scan …` splits the work between processes, and --part between
    processes or machines that share the cache folder LAYER_SURGERY_CACHE.
    """
    from surgery.analysis import disk_passes, scan_part
    from surgery.analysis import scan as measure
    from surgery.analysis.distributed import distributed_scan, is_first, launched
    from surgery.analysis.json_values import part_json, scan_json
    from surgery.analysis.parts import as_dealt
    from surgery.analysis.pilot import Pilot
    from surgery.analysis.precision import FOR_SCANS

    from ..reports.scan import part_line, scan_tables

    share = _pair(part, "/", "a part of a scan", "1/4")
    dealt = as_dealt(*share) if share else (0, 1)
    if share and launched():
        raise SurgeryError("Either `accelerate launch` divides a scan, or --part does: choose one.")
    if launched() and not is_first():
        err.quiet = out.quiet = True  # only the first process prints
    opened = open_base(base, from_disk)
    with progress_bar() as progress:
        scores, span = tuple(score or DEFAULT), _pair(within, ":", "a span of layers", "8:20")
        if span and "repeat_map" not in scores:
            raise SurgeryError("--within is for the repeat map: add --score repeat_map.")
        words = read_text(text, kind, dataset, window, limit, progress, "choose", precision)
        pilot = Pilot.of(opened.depth, scores, span)
        if from_disk:
            opened.load(progress)  # only then is it known whether they are read from disk
        sample, name = sized_sample(
            opened,
            words,
            precision,
            partial(pilot.costs, opened),
            progress,
            default=FOR_SCANS,
            share=pilot.share,
        )
        if from_disk:
            passes = disk_passes(
                opened,
                sample,
                scores=scores,
                within=span,
                part=dealt,
                progress=progress,
            )
            print_disk_reads(opened, Plan.whole(opened.depth), passes)
        if share:
            made = scan_part(opened, sample, *share, scores=scores, within=span, progress=progress)
        elif launched():
            report_to = progress if is_first() else silent
            result = distributed_scan(
                opened, sample, scores=scores, within=span, progress=report_to
            )
        else:
            result = measure(opened, sample, scores=scores, within=span, progress=progress)
    if share:
        if as_json:
            print_json(part_json(opened, name, made))
        else:
            out.print(escape(part_line(made)))
        return
    if launched() and not is_first():
        return
    if as_json:
        print_json(scan_json(opened, name, result))
        return
    out.print(f"{escape(opened.name)}, {escape(name)}")
    for table in scan_tables(opened, result):
        out.print(table)


def _pair(text: str, mark: str, what: str, example: str) -> tuple[int, int] | None:
    """Two whole numbers with a mark between them, if anything is written."""
    if not text:
        return None
    if not (m := re.fullmatch(rf"\s*(\d{{1,6}})\s*{mark}\s*(\d{{1,6}})\s*", text)):
        raise SurgeryError(f"“{text[:40]}” is not {what}: write it as {example}.")
    return int(m[1]), int(m[2])
