"""One scan over several processes, on one machine or many: `accelerate launch -m surgery scan …`.

Every process has the base and runs its own pass of it; the variants are dealt out in turn, and the
first process gets all the losses. Knows processes; what is measured is `scan`'s affair.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from surgery.errors import SurgeryError
from surgery.progress import Progress, silent

from .sample import Sample
from .scan import DEFAULT, Scan, Work

if TYPE_CHECKING:
    from surgery.base import Base


def launched() -> bool:
    """Whether this process was launched as one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def is_first() -> bool:
    """Whether this process is the one that speaks; true where there is no other."""
    return int(os.environ.get("RANK") or 0) == 0


def spread_scan(
    base: Base,
    sample: Sample,
    *,
    scores: Sequence[str] = DEFAULT,
    within: tuple[int, int] | None = None,
    progress: Progress = silent,
) -> Scan:
    """The scan that all processes make together: whole in the first, of its own part in the others.

    To be called in every process, with the same arguments. Raises `SurgeryError` in all of them if
    one of them fails.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState(cpu=not torch.cuda.is_available())
    error, answer = None, {}
    work = None
    try:
        work = Work(base, sample, scores, within)
        work.measure((state.process_index, state.num_processes), progress=progress)
        answer = {plan: work.losses(plan) for plan in work.plans.values()}
        answer = {plan: losses for plan, losses in answer.items() if losses is not None}
    except SurgeryError as caught:
        error = str(caught)
    refused = work.refused if work else {}
    counts = (work.forwards, work.naive) if work else (0, 0)
    found = gather_object([(error, answer, refused, counts)])
    state.destroy_process_group()
    for said, *_ in found:
        if said:
            raise SurgeryError(said)
    for _, losses, refusals, _ in found:
        for plan, values in losses.items():
            work.kept.put(plan, values)
        work.refused |= refusals
    work.forwards = sum(counts[0] for *_, counts in found)
    work.naive = sum(counts[1] for *_, counts in found)
    return work.result(finished=not work.missing())
