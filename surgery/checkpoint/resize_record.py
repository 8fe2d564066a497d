"""The record, in a checkpoint, that its embeddings were resized to the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from surgery.errors import SaveError

RECORD = "resized_embeddings.json"


def write_resized(folder: Path, resized: tuple[int, int]) -> None:
    """Write how many embeddings the base has, and the checkpoint."""
    before, now = resized
    fields: dict[str, object] = {"base_embeddings": before, "embeddings": now}
    if now > before:
        fields["new_embeddings"] = "mean of the base's"
    (folder / RECORD).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def read_resized(folder: Path) -> tuple[int, int] | None:
    """How many embeddings the base has, and the checkpoint; None if nothing was resized. Raises
    `SaveError` for a record that can't be read."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        found = fields["base_embeddings"], fields["embeddings"]
        if all(type(number) is int for number in found):
            return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise SaveError(f"{path} can't be read, so it isn't known how the embeddings were resized.")
