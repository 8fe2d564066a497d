"""Write an operated model as a checkpoint, within the limits of the deployment."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.io.archive import zip_folder
from surgery.operation import Operation
from surgery.progress import Progress

from .bases import Bases

if TYPE_CHECKING:
    from surgery import Base

AS_STORED = "as stored"


def write(
    bases: Bases,
    operation: Operation,
    name: str,
    dtype: str,
    folder: Path,
    zipped: bool,
    progress: Progress,
) -> Path:
    """Write the checkpoint to a folder of its own in `folder`, or as one file if `zipped`. Raises
    `SurgeryError`, also for more than the deployment allows."""
    plan = operation.plan
    base = bases.get(operation, progress)
    from surgery.checkpoint.save import saved_bytes

    allowed = bases.deployment
    allowed.check_plan(len(plan))
    wanted = None if dtype == AS_STORED else dtype
    size = saved_bytes(base, plan, wanted)
    allowed.check_size(size, "This patient's weights")
    called = file_name(name) or default_name(base, len(plan))
    try:
        with bases.in_use(base):
            if base.kind == "config":
                bases.load(operation, progress)  # saved from memory
            elif not (plan.dropped or base.source.merged):
                bases.fetch(base, progress)  # else the save downloads only what it needs
            # The folder and the zip file.
            with bases.disk_room((2 if zipped else 1) * size, folder):
                out = operation.save(base, folder / called, dtype=wanted, progress=progress)
                if zipped:
                    out = zip_folder(out, folder / f"{called}.zip", progress)
                    progress("Ready", 1, 1)  # raises if the page was closed
                return out
    except BaseException:
        if zipped:  # the folder is used for this file only
            shutil.rmtree(folder, ignore_errors=True)
        raise


def default_name(base: Base, layers: int) -> str:
    """The name of a checkpoint that was given none. Random weights are not named after the trained
    model that lent its config."""
    random = base.kind == "config"
    origin = f"{base.architecture}-random-weights" if random else base.name
    return f"{file_name(origin)}-{layers}-layers"


def file_name(text: str) -> str:
    """A name that is safe on every disk, from whatever was typed."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(text or "").rpartition("/")[2]).strip("-.")[:80]
