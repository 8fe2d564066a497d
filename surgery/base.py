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

# Bases in use, by the identity of their files and whether weights are read from disk: opening the
# same one again shares its weights.
_open: weakref.WeakValueDictionary[tuple[str, bool], Base] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class Base(Model):
    """A base model. Get one with `Base.open`; equal files give the same object."""

    @classmethod
    def open(cls, spec: str, progress: Progress = silent, *, from_disk: bool = False) -> Base:
        """Open "bundled", "org/name[@revision]", a folder, "file.gguf" or "config:file.json"; or
        "BASE+ADAPTER", one of the first four with a LoRA merged into it.

        `from_disk` lets the weights be larger than the CPU's memory: then they are read from their
        files whenever they are used. Scans read each layer once for all plans that need it; text
        comes as slowly as the disk reads all weights for every token.

        Reads the config and the safetensors headers alone, from the Hub by range requests; never
        weights, never pickles, never remote code. Raises `BaseError`.
        """
        source = open_source(spec, progress)
        with _opening:
            key = (source.identity, from_disk)
            # A model in the Hub's cache has its identity by name, not by its files' times.
            if (base := _open.get(key)) is None or base.source.has_changed:
                base = cls(source, from_disk)
                _open[key] = base
            return base

    def preview(self, plan: Plan) -> Preview:
        """Preview the plan by arithmetic alone. Reads no weights."""
        return preview_of(self, plan)

    def operate(self, plan: Plan) -> Patient:
        """Return the patient, ready to run. Raises `Refused` if it can't be guaranteed correct."""
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
        """Write the checkpoint to the folder `out`, completely or not at all. Returns the folder.

        `dtype` converts the weights; `shard_size` limits each file. `verified` compares every
        tensor with the plan before the folder appears; `healed` are tensors that a repair or
        training changed, which replace the plan's. Raises `Refused`, `BaseError` or `SaveError`,
        and then `out` is unchanged.
        """
        return save(self, plan, Path(out), dtype, shard_size, overwrite, progress, verified, healed)
