"""Tensors that a repair or training changed, and their record in a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from surgery.errors import SaveError
from surgery.io.copy import Readable
from surgery.io.finite_json import plain

from .tensor_spec import TensorSpec

RECORDS = ("healing.json", "repair.json")  # a checkpoint has one of them, or none


def _no_file(file: str, start: int, end: int) -> Readable:
    raise AssertionError("trained tensors come from memory")


@dataclass(frozen=True)
class TrainedTensors:
    """Tensors that a repair or training changed, by their names in the patient.

    `words` are for the model card and `facts` (settings, tokens, perplexities) for programs. `tag`
    says in one word what was done; `record` is the file that has the facts.
    """

    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    words: str
    facts: Mapping
    tag: str = "healed"
    record: str = RECORDS[0]

    def write(self, folder: Path, specs: Iterable[TensorSpec]) -> None:
        """Write the record into a checkpoint: the facts, and a SHA-256 of each changed tensor."""
        given = [spec for spec in specs if spec.trained]
        sums = {}
        for spec in given:
            digest = hashlib.sha256()
            for data in spec.make(_no_file) if spec.make else ():
                digest.update(data)
            sums[spec.name] = digest.hexdigest()
        text = json.dumps(plain({**self.facts, "tensors": sums}), indent=2)
        (folder / self.record).write_text(text + "\n", encoding="utf-8")


def digests(folder: Path) -> dict[str, str]:
    """{tensor: SHA-256} of the changed tensors of a checkpoint; empty if there are none. Raises
    `SaveError` for a record that can't be read."""
    path = next((path for name in RECORDS if (path := folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))["tensors"]
        if all(isinstance(v, str) for pair in sums.items() for v in pair):
            return sums
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        pass
    raise SaveError(f"{path} can't be read, so the changed weights can't be verified.")
