"""Folders that appear whole or not at all: written beside their place, swapped in when done.

While `out` is written there is a hidden folder beside it, held by the process that writes:

    .out.0a1b2c3d.partial/
        lock     held: not left behind
        new      what is being written, later what it replaced
        old      what it replaces, where the system can't exchange two folders in one step
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SaveError
from .memory import gigabytes
from .owned import LOCK, left_behind, own
from .target import MODEL, Kind, check_target, explained

if TYPE_CHECKING:
    from .base import Base

SPARE = 16 << 20  # bytes for what stands beside the weights
_HOLDER = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
_NEW, _OLD = "new", "old"
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_HERE = -100  # Linux' AT_FDCWD: paths mean what they mean elsewhere


@contextlib.contextmanager
def appearing(
    out: Path,
    size: int,
    overwrite: bool = False,
    durable: bool = False,
    kind: Kind = MODEL,
    bases: Iterable[Base] = (),
) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends well, and else is removed.

    `size` is what the block means to write, in bytes: checked against the free space first.
    `durable` waits until it is on the disk, where something else will go once it has appeared.
    What `overwrite` may replace depends on the `kind` of output and the `bases` it is made from:
    see `check_target`. Raises `SaveError`.
    """
    bases = tuple(bases)
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent)
        check_target(out, overwrite, kind, bases)
        free = shutil.disk_usage(out.parent).free
        if free < size + SPARE:
            raise SaveError(
                f"There is no room for it: {gigabytes(size + SPARE)} are needed and "
                f"{gigabytes(free)} are free in {out.parent}."
            )
        with _holder(out) as holder:
            new = holder / _NEW
            yield new
            if durable:
                _sync(new)
            if not _placed(new, out):
                check_target(out, overwrite, kind, bases)
                _sync(new)
                _replace(new, out, holder / _OLD)
            if durable:
                _sync_one(out.parent)


def sweep(folder: Path) -> None:
    """Clear up what processes that are gone left in `folder`; what they had put aside to replace it
    goes back to its place. What can't be cleared stays. Raises `OSError` for `folder` itself."""
    for path in sorted(folder.iterdir()):
        if (m := _HOLDER.fullmatch(path.name)) and _is_holder(path):
            with contextlib.suppress(OSError):
                with left_behind(path, (_NEW, _OLD)) as free:
                    if free:
                        _clear(path, folder / m[1])
                if free and path.exists():  # an open file can't be removed on Windows
                    _clear(path, folder / m[1])


def restored(out: Path) -> bool:
    """Does something stand at `out`, if need be after what a killed process had put aside there is
    put back?"""
    with contextlib.suppress(OSError):
        if not out.exists():
            sweep(out.parent)
    return out.exists()


@contextlib.contextmanager
def _holder(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that this process holds. It goes when the block ends."""
    holder = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    lock = own(holder, _NEW)
    try:
        yield holder
    finally:
        try:
            _clear(holder, out)
        finally:
            lock.release()
            if holder.exists():  # on Windows, as above
                _clear(holder, out)


def _is_holder(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return not path.is_symlink() and {LOCK, _NEW, _OLD}.issuperset(os.listdir(path))
    return False


def _clear(holder: Path, out: Path) -> None:
    """Remove a holder. What was put aside for something that did not come goes back first."""
    if (holder / _OLD).exists() and (holder / _NEW).exists():
        if out.exists():
            return  # made by somebody else meanwhile: then both stay
        os.rename(holder / _OLD, out)
    shutil.rmtree(holder, ignore_errors=True)


def _placed(new: Path, out: Path) -> bool:
    """Rename `new` to `out` where nothing stands: in one step, so that nobody is pushed away."""
    try:
        os.rename(new, out)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True


def _replace(new: Path, out: Path, old: Path) -> None:
    """Put `new` in the place of `out`, and `out` where it goes with the holder."""
    if exchange(new, out):
        return
    os.rename(out, old)
    os.rename(new, out)  # until then `_clear` puts the old one back


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step. False where the system or the file system can't."""
    try:
        system = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            done = system.renamex_np(os.fsencode(one), os.fsencode(other), _EXCHANGE)
        else:
            done = system.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    except (AttributeError, OSError, TypeError):  # no such call, as on Windows
        return False
    return done == 0


def _sync(folder: Path) -> None:
    """Have everything on the disk before what it replaces goes: a power cut must not take both.

    Where nothing is replaced this is left to the system, since waiting for the disk takes longer
    than the copying; a power cut within seconds of a save can then leave a folder with holes in it,
    which `verify` finds.
    """
    for path in (*folder.rglob("*"), folder):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
