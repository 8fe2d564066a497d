"""Folders that appear whole or not at all: written beside their place, renamed when done.

Knows disks, names and what is left behind by processes that died. What goes into a folder is the
caller's affair.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from .errors import SaveError
from .memory import gigabytes

SPARE = 16 << 20  # bytes for what stands beside the weights


@contextlib.contextmanager
def appearing(
    out: Path, size: int, overwrite: bool = False, durable: bool = False
) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends well, and else is removed.

    `size` is what the block means to write, in bytes: checked against the free space first.
    `durable` waits until it is on the disk, where something else will go once it has appeared.
    Raises `SaveError`.
    """
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        check_target(out, overwrite)
        free = shutil.disk_usage(out.parent).free
        if free < size + SPARE:
            raise SaveError(
                f"There is no room for it: {gigabytes(size + SPARE)} are needed and "
                f"{gigabytes(free)} are free in {out.parent}."
            )
    partial = out.parent / f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}.partial"
    try:
        with explained(out):
            partial.mkdir()
            yield partial
            if durable:
                _sync(partial)
            _take_place(partial, out, overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def resolve(out: str | Path) -> Path:
    """The place that `out` means, past links and `~`. Raises `SaveError`."""
    try:
        return Path(out).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a loop, nobody's home
        raise SaveError(f"“{str(out)[:200]}” is no place to write to: {error}") from error


def check_target(out: Path, overwrite: bool) -> None:
    """Raise `SaveError` if something stands at `out` that may not be replaced."""
    with explained(out):
        if not out.exists():
            return
        if not out.is_dir():
            raise SaveError(f"{out} is a file, not a folder: choose another name.")
        if any(out.iterdir()) and not overwrite:
            raise SaveError(f"{out} exists already. Choose another name, or ask to overwrite it.")


def _take_place(partial: Path, out: Path, overwrite: bool) -> None:
    """Rename `partial` to `out`; what may be replaced is put aside first and removed last."""
    try:
        os.rename(partial, out)  # in one step: nobody who came first is pushed away
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    check_target(out, overwrite)
    _sync(partial)
    aside = partial.with_suffix(".old")
    os.rename(out, aside)
    try:
        os.rename(partial, out)
    except BaseException:
        os.rename(aside, out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have everything on the disk before what it replaces goes: a power cut must not take both.

    Where nothing is replaced this is left to the system, since waiting for the disk takes longer
    than the copying; a power cut within seconds of a save can then leave a folder with holes in it,
    which `verify` finds.
    """
    for path in (*folder.rglob("*"), folder):
        if os.name == "nt" and path.is_dir():
            continue  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(out: Path) -> None:
    """Clear up what an earlier run of a process that is gone left beside `out`."""
    pattern = re.compile(rf"\.{re.escape(out.name)}\.([0-9]{{1,9}})-[0-9a-f]{{8}}\.(partial|old)")
    for path in sorted(out.parent.iterdir()):
        m = pattern.fullmatch(path.name)
        if not m or psutil.pid_exists(int(m[1])):
            continue
        if m[2] == "old" and not out.exists():  # it died between putting aside and replacing
            os.rename(path, out)
        else:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turn what the disk complains of while `out` is written into a `SaveError`."""
    try:
        yield
    except OSError as error:
        place = out.parent
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"The disk of {place} is full. Free some space or choose another place."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            said = f"{place} can't be written to. Choose a folder that you may write to."
        else:
            said = f"{out} could not be written: {error.strerror or error}"
        raise SaveError(said) from error
