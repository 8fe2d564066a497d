"""The record, in a checkpoint, that its embeddings were resized to the tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from surgery.errors import SaveError

RECORD = "resized_embeddings.json"
_UNION = "added tokens of the other bases"


@dataclass(frozen=True)
class Resizing:
    """How many embeddings the base has, and the checkpoint. `union`: the new ones are those of
    tokens that other bases of the stack have added."""

    before: int
    now: int
    union: bool = False


def write_resized(folder: Path, resizing: Resizing) -> None:
    """Write what was done."""
    fields = {"base_embeddings": resizing.before, "embeddings": resizing.now}
    made = {}
    if resizing.union:
        made = {"new_embeddings": _UNION}
    elif resizing.now > resizing.before:
        made = {"new_embeddings": "mean of the base's"}
    (folder / RECORD).write_text(json.dumps(fields | made, indent=2) + "\n", encoding="utf-8")


def read_resized(folder: Path) -> Resizing | None:
    """What was done; None if nothing was. Raises `SaveError` for a record that can't be read."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        before, now = fields["base_embeddings"], fields["embeddings"]
        if type(before) is type(now) is int:
            return Resizing(before, now, fields.get("new_embeddings") == _UNION)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        pass
    raise SaveError(f"{path} can't be read, so it isn't known how the embeddings were resized.")
