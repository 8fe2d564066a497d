"""Measure one part of a scan, for several processes or machines that share it without talking.

The variants are dealt out in turn. Every measurement goes into the cache on disk, from which
`scan` takes it; so do those that were copied there from the cache of another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.errors import SurgeryError
from surgery.io.cache_folder import cache_folder
from surgery.progress import Progress, silent

from .importance import DEFAULT, Span
from .layer_scan import Work
from .sample import Sample

if TYPE_CHECKING:
    from surgery.base import Base


@dataclass(frozen=True)
class Part:
    """What became of part `number`, from 1, of `of`.

    `measured` variants were run now, and `known` ones were in the cache. `missing` measurements of
    the whole scan are not in this machine's cache yet.
    """

    number: int
    of: int
    measured: int
    known: int
    missing: int


def as_dealt(number: int, of: int) -> tuple[int, int]:
    """A part counted from 1 as (k, n) with k from 0. Raises `SurgeryError` if there is none."""
    if not 1 <= number <= of:
        raise SurgeryError(f"There is no part {number} of {of}: parts count from 1.")
    return number - 1, of


def scan_part(
    base: Base,
    sample: Sample,
    number: int,
    of: int,
    *,
    scores: Sequence[str] = DEFAULT,
    within: Span | None = None,
    progress: Progress = silent,
) -> Part:
    """Measure part `number`, from 1, of a scan in `of` parts.

    Scores that need no variants belong to the first part. The other arguments are those of `scan`,
    and the same in every part. Raises `SurgeryError`, also if the measurements can't be kept.
    """
    part = as_dealt(number, of)
    work = Work(base, sample, scores, within, progress)
    if not work.cache.is_lasting:
        raise SurgeryError(
            "This base has weights in memory only, so measurements of it are not kept on disk and "
            "its scan can't be divided into parts."
        )
    plans, missing = work.plans_of(part), work.missing(part)
    work.measure(part, progress=progress)
    kept = [plan for plan in plans if plan not in work.refused]
    if not all(map(work.cache.is_stored, kept if number > 1 else [work.whole, *kept])):
        raise SurgeryError(
            f"The measurements can't be kept in {cache_folder()}: make room there, or set "
            "LAYER_SURGERY_CACHE to another folder."
        )
    left = len(work.missing()) + len(work.missing_arrays())
    return Part(number, of, len(missing), len(plans) - len(missing), left)
