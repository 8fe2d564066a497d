"""Heal to the end, in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from surgery.base import Base
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .healed import Healed
from .run import Event, HealingRun
from .settings import Settings


def heal(
    base: Base,
    plan: Plan,
    settings: Settings,
    folder: str | Path,
    on_event: Callable[[Event], None] | None = None,
    progress: Progress = silent,
) -> Healed:
    """Heal to the end, in a new run in `folder` or by resuming the one there. `on_event` is called
    after every step and may raise to stop; the state is saved. Raises `SurgeryError`."""
    run = HealingRun(base, plan, settings, folder, progress=progress)
    for event in run:
        if on_event is not None:
            try:
                on_event(event)
            except BaseException:
                run.save()
                raise
    return run.result()
