"""Share one scan among several processes: `accelerate launch -m surgery scan …`.

Every process has the base and runs its own pass of it. The variants are dealt out in turn, and the
first process gets all the losses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from surgery.errors import SurgeryError
from surgery.progress import Progress, silent

from .importance import DEFAULT, Span
from .layer_scan import Scan, Work
from .sample import Sample

if TYPE_CHECKING:
    from surgery.base import Base


def launched() -> bool:
    """Whether this process is one of several that were launched together."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def is_first() -> bool:
    """Whether this process prints the output; true if there is only one."""
    return int(os.environ.get("RANK") or 0) == 0


def distributed_scan(
    base: Base,
    sample: Sample,
    *,
    scores: Sequence[str] = DEFAULT,
    within: Span | None = None,
    progress: Progress = silent,
) -> Scan:
    """Scan a base in all processes together. The first gets the whole scan, the others their part.

    Call it in every process with the same arguments. Raises `SurgeryError` in all of them if one
    fails.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    work = Work(base, sample, scores, within, progress)  # refused in all processes or in none
    state = PartialState(cpu=not torch.cuda.is_available())
    error, losses = None, {}
    try:
        work.measure((state.process_index, state.num_processes), progress=progress)
        measured = {plan: work.losses(plan) for plan in work.plans.values()}
        losses = {plan: values for plan, values in measured.items() if values is not None}
    except SurgeryError as raised:
        error = str(raised)
    results = gather_object([(error, losses, work.refused, (work.forwards, work.naive))])
    state.destroy_process_group()
    for message, *_ in results:
        if message:
            raise SurgeryError(message)
    for _, losses, refusals, _ in results:
        for plan, values in losses.items():
            work.cache.put(plan, values)
        work.refused |= refusals
    work.forwards = sum(counts[0] for *_, counts in results)
    work.naive = sum(counts[1] for *_, counts in results)
    return work.result(finished=not work.missing())
