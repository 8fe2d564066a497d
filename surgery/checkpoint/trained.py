"""Tensors that training changed, and their record in a checkpoint, `healing.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from surgery.errors import SaveError
from surgery.io.copy import Readable

from .tensor_spec import TensorSpec

NAME = "healing.json"


def _no_file(file: str, start: int, end: int) -> Readable:
    raise AssertionError("trained tensors come from memory")


@dataclass(frozen=True)
class TrainedTensors:
    """Tensors that training changed, by their names in the patient; `words` for the model card;
    `facts` for programs (objective, settings, steps, tokens, perplexities)."""

    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    words: str
    facts: Mapping

    def write(self, folder: Path, specs: Iterable[TensorSpec]) -> None:
        """Write `healing.json` into a checkpoint: the facts, and a SHA-256 of each trained
        tensor."""
        given = [spec for spec in specs if spec.trained]
        sums = {}
        for spec in given:
            digest = hashlib.sha256()
            for data in spec.make(_no_file) if spec.make else ():
                digest.update(data)
            sums[spec.name] = digest.hexdigest()
        text = json.dumps({**self.facts, "tensors": sums}, indent=2)
        (folder / NAME).write_text(text + "\n", encoding="utf-8")


def digests(folder: Path) -> dict[str, str]:
    """{tensor: SHA-256} of the trained tensors of a checkpoint; empty if there are none. Raises
    `SaveError` for a file that can't be read."""
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))["tensors"]
        if all(isinstance(v, str) for pair in sums.items() for v in pair):
            return sums
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        pass
    raise SaveError(f"{path} can't be read, so what was trained can't be verified.")
