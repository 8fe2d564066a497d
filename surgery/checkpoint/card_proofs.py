"""List in the model card of a saved checkpoint what was proved of it, and nothing else."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from .card_section import cell, read_section, write_section

_NAME = "verified"
_CELLS = re.compile(r"(?<!\\)\|")
_COLUMNS = 4
_HEAD = (
    "## Verified",
    "",
    "What `python -m surgery verify --card` ran and found to hold, and nothing else.",
    "",
    "| with | version | what held | date |",
    "|---|---|---|---|",
)


@dataclass(frozen=True)
class Proof:
    """What was found to hold, and with which program. There is one of each `runtime` in a card."""

    runtime: str
    version: str
    held: str


def check_card(folder: Path) -> None:
    """Raise `SaveError` if the folder has no card that can be read: before anything slow."""
    read_section(folder, _NAME)


def write_proof(folder: Path, proof: Proof) -> None:
    """Add the proof to the folder's card, dated today, in place of an earlier one with the same
    runtime. Raises `SaveError` if there is no card, or it can't be written."""
    today = datetime.date.today().isoformat()
    row = [cell(text) for text in (proof.runtime, proof.version or "not stated", proof.held, today)]
    _write(folder, {**_rows(folder), row[0]: row})


def withdraw(folder: Path, runtime: str | None = None) -> None:
    """Remove a runtime's proof from the folder's card after it failed; without a name, all of them.
    Raises `SaveError` as `write_proof` does."""
    rows = _rows(folder)
    _write(folder, {name: row for name, row in rows.items() if runtime and name != cell(runtime)})


def _rows(folder: Path) -> dict[str, list[str]]:
    """The rows of the card's table by their first cell."""
    rows = {}
    for line in read_section(folder, _NAME)[len(_HEAD) :]:
        row = [text.strip() for text in _CELLS.split(line)[1:-1]]
        if len(row) == _COLUMNS:
            rows[row[0]] = row
    return rows


def _write(folder: Path, rows: dict[str, list[str]]) -> None:
    table = [f"| {' | '.join(row)} |" for row in rows.values()]
    write_section(folder, _NAME, [*_HEAD, *table] if table else [])
