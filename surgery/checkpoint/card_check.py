"""Write what a check found into the model card of a saved checkpoint."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from pathlib import Path

from surgery.errors import SaveError
from surgery.io.cache_file import whole_file

_CARD = "README.md"
_BEGIN, _END = "<!-- checked -->", "<!-- end of checked -->"
_SECTION = re.compile(rf"\n*{_BEGIN}.*?{_END}\n*", re.DOTALL)


def write_check(folder: Path, against: str, rows: Iterable[tuple[str, str, str, bool]]) -> None:
    """Write a section “Checked” into the folder's card, in place of an earlier one. `against` says
    what it was checked against, and on what; each of `rows` is (what, limit, measured, passed).
    Raises `SaveError` if there is no card, or it can't be written."""
    path = folder / _CARD
    lines = [
        "## Checked",
        "",
        f"Against {_cell(against)}, {datetime.date.today().isoformat()}.",
        "",
        "| | limit | measured | |",
        "|---|---|---|---|",
        *(
            f"| {_cell(what)} | {_cell(limit)} | {_cell(measured)} | "
            f"{'passes' if passed else '**fails**'} |"
            for what, limit, measured, passed in rows
        ),
    ]
    try:
        text = _SECTION.sub("\n", path.read_text(encoding="utf-8")).rstrip()
        with whole_file(path) as file:
            file.write("\n".join([text, "", _BEGIN, *lines, _END, ""]).encode())
    except FileNotFoundError as error:
        raise SaveError(f"{folder} has no model card ({_CARD}) to write into.") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SaveError(f"The model card {path} can't be written: {reason}.") from error


def _cell(text: str) -> str:
    """One line that doesn't end a cell or begin markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;")
