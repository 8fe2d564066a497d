"""The front door: open a base, then preview, operate or save a plan of it."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path

from .checkpoint.save import save
from .checkpoint.trained import TrainedTensors
from .model import Model
from .patient import Patient
from .plan import Plan
from .preview import Preview, preview_of
from .progress import Progress, silent
from .sources import open_source

# Bases in use, by what their files are: whoever opens the same one shares its weights.
_open: weakref.WeakValueDictionary[str, Base] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class Base(Model):
    """A base model. Get one with `Base.open`; equal files give the same object."""

    @classmethod
    def open(cls, spec: str, progress: Progress = silent) -> Base:
        """Open "bundled", "org/name[@revision]", a folder, "file.gguf" or "config:file.json".

        Reads the config and the safetensors headers alone, from the Hub by range requests; never
        weights, never pickles, never remote code. Raises `BaseError`.
        """
        source = open_source(spec, progress)
        with _opening:
            if (base := _open.get(source.identity)) is None:
                base = cls(source)
                _open[source.identity] = base
            return base

    def preview(self, plan: Plan) -> Preview:
        """What the plan would make of this base, by arithmetic alone."""
        return preview_of(self, plan)

    def operate(self, plan: Plan) -> Patient:
        """The patient, runnable. Raises `Refused` where it can't be promised right."""
        return Patient.of(self, plan)

    def save(
        self,
        plan: Plan,
        out: str | Path,
        *,
        dtype: str | None = None,
        shard_size: str | int = "5GB",
        overwrite: bool = False,
        verified: bool = True,
        healed: TrainedTensors | None = None,
        progress: Progress = silent,
    ) -> Path:
        """Write the checkpoint to the folder `out`: whole, or not at all. Returns the folder.

        `verified` compares every tensor with what the plan says before the folder appears; `healed`
        are tensors that training changed, which stand in the place of the plan's.
        """
        return save(self, plan, Path(out), dtype, shard_size, overwrite, progress, verified, healed)
