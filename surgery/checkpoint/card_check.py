"""Write what a check found into the model card of a saved checkpoint."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from .card_section import cell, write_section


def write_check(folder: Path, against: str, rows: Iterable[tuple[str, str, str, bool]]) -> None:
    """Write a section “Checked” into the folder's card, in place of an earlier one. `against` says
    what it was checked against, and on what; each of `rows` is (what, limit, measured, passed).
    Raises `SaveError` if there is no card, or it can't be written."""
    lines = [
        "## Checked",
        "",
        f"Against {cell(against)}, {datetime.date.today().isoformat()}.",
        "",
        "| | limit | measured | |",
        "|---|---|---|---|",
        *(
            f"| {cell(what)} | {cell(limit)} | {cell(measured)} | "
            f"{'passes' if passed else '**fails**'} |"
            for what, limit, measured, passed in rows
        ),
    ]
    write_section(folder, "checked", lines)
