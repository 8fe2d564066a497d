"""Replace a section of a saved folder's model card, and leave the rest as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from surgery.errors import SaveError
from surgery.io.cache_file import whole_file

CARD = "README.md"


def read_section(folder: Path, name: str) -> list[str]:
    """The lines of the section `name`; none if the card has no such section. Raises `SaveError` if
    there is no card, or it can't be read."""
    found = _pattern(name).search(_read(folder))
    return found["lines"].splitlines() if found else []


def write_section(folder: Path, name: str, lines: Sequence[str]) -> None:
    """Write the section `name` in place of an earlier one, or at the end of the card; without lines
    it is removed. The card is replaced in one step. Raises `SaveError` if there is no card, or it
    can't be written."""
    text = _read(folder)
    block = "\n".join([_begin(name), *lines, _end(name), ""]) if lines else ""
    found = _pattern(name).search(text)
    if found:
        before, after = text[: found.start()], text[found.end() :]
        text = f"{before}{block}{after}" if lines else f"{before.rstrip()}\n{after}"
    elif lines:
        text = f"{text.rstrip()}\n\n{block}"
    else:
        return
    try:
        with whole_file(folder / CARD) as file:
            file.write(text.encode())
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error


def cell(text: str) -> str:
    """Text for a cell of a table: one line that doesn't end the cell or begin markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;")


def _read(folder: Path) -> str:
    try:
        return (folder / CARD).read_bytes().decode()
    except FileNotFoundError as error:
        raise SaveError(f"{folder} has no model card ({CARD}) to write into.") from error
    except UnicodeDecodeError as error:
        raise _unwritable(folder, "it is not text in UTF-8") from error
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error


def _unwritable(folder: Path, why: str) -> SaveError:
    return SaveError(f"The model card {folder / CARD} can't be written: {why}.")


def _begin(name: str) -> str:
    return f"<!-- {name} -->"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"


def _pattern(name: str) -> re.Pattern[str]:
    begin, end = re.escape(_begin(name)), re.escape(_end(name))
    return re.compile(rf"{begin}\r?\n(?P<lines>.*?){end}(\r?\n)?", re.DOTALL)
