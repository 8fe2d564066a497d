"""Write folders and files atomically: under a temporary name beside the target, then put in place.

While `out` is written, there is a hidden folder beside it, locked by the writing process:

    .out.0a1b2c3d.partial/
        lock     held while the process lives
        new      the output being written; after the swap, the folder it replaced
        old      the folder being replaced, on systems without an atomic exchange
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from surgery.errors import SaveError
from surgery.memory.devices import gigabytes

from .output_target import MODEL, Kind, check_target, explained
from .ownership import LOCK, left_behind, own

SPARE = 16 << 20  # bytes for what stands beside the weights
_HOLDER = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
_NEW, _OLD = "new", "old"
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_HERE = -100  # AT_FDCWD of Linux: relative paths start at the working directory


@contextlib.contextmanager
def atomic_folder(
    out: Path,
    size: int,
    overwrite: bool = False,
    durable: bool = False,
    kind: Kind = MODEL,
    base_files: Iterable[Path] = (),
) -> Iterator[Path]:
    """Yield a folder beside `out` that is renamed to `out` if the block succeeds, and removed
    otherwise.

    `size` is what the block will write, in bytes, and is compared with the free space first.
    `durable` waits until everything is on the disk, for outputs on which a later deletion depends.
    What `overwrite` may replace depends on the `kind` of output and on the `base_files` it is made
    from; see `check_target`. Raises `SaveError`.
    """
    with explained(out):
        base_files = tuple(base_files)
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent)
        check_target(out, overwrite, kind, base_files)
        _check_room(out.parent, size)
        with _holder(out) as holder:
            new = holder / _NEW
            yield new
            if durable:
                _sync(new)
            if not _placed(new, out):
                check_target(out, overwrite, kind, base_files)
                _sync(new)
                _replace(new, out, holder / _OLD)
            if durable:
                _sync_one(out.parent)


@contextlib.contextmanager
def atomic_files(
    outs: Sequence[Path],
    size: int,
    check: Callable[[Path], None],
    overwrite: bool = False,
) -> Iterator[Path]:
    """Yield a folder to write files into, which are renamed to `outs` if the block succeeds.

    `outs` are in one folder, and are written under their own names. The first gets its name last,
    so that it is never there without the others. `check` is called for each before and after the
    block, and raises `SaveError` if it may not be written; `size` is what the block will write, in
    bytes. Raises `SaveError`.
    """
    first = outs[0]
    with explained(first):
        first.parent.mkdir(parents=True, exist_ok=True)
        sweep(first.parent)
        for out in outs:
            check(out)
        _check_room(first.parent, size)
        with _holder(first) as holder:
            new = holder / _NEW
            yield new
            if any(out.exists() for out in outs):
                _sync(new)
            placed: list[Path] = []
            try:
                for out in reversed(outs):
                    check(out)
                    replaces = out.exists()
                    _place_file(new / out.name, out, overwrite)
                    if not replaces:
                        placed.append(out)
            except BaseException:
                for out in placed:
                    out.unlink(missing_ok=True)
                raise


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise SaveError(
            f"There is no room for it: {gigabytes(size + SPARE)} are needed and "
            f"{gigabytes(free)} are free in {folder}."
        )


def _place_file(new: Path, out: Path, overwrite: bool) -> None:
    """Give a file its name, in one atomic step; without `overwrite` only if nothing has it."""
    if not overwrite and hasattr(os, "link"):
        try:
            os.link(new, out)  # fails where a rename would replace
            return
        except FileExistsError:
            raise SaveError(f"{out} exists already. Choose another name.") from None
        except OSError:  # a file system without links
            pass
    os.replace(new, out)


def sweep(folder: Path) -> None:
    """Remove what dead processes left in `folder`, and restore folders that they had moved aside.

    Leftovers that can't be removed stay. Raises `OSError` if `folder` itself can't be read.
    """
    for path in sorted(folder.iterdir()):
        if (m := _HOLDER.fullmatch(path.name)) and _is_holder(path):
            with contextlib.suppress(OSError):
                with left_behind(path, (_NEW, _OLD)) as free:
                    if free:
                        _clear(path, folder / m[1])
                if free and path.exists():  # an open file can't be removed on Windows
                    _clear(path, folder / m[1])


def restored(out: Path) -> bool:
    """Return whether `out` exists, after restoring it if a killed process had moved it aside."""
    with contextlib.suppress(OSError):
        if not out.exists():
            sweep(out.parent)
    return out.exists()


def remove_folder(folder: Path) -> None:
    """Remove a folder with all its contents. It is moved away first, so that a process that is
    killed leaves no partial folder there. Raises `OSError` if it can't be moved."""
    with _holder(folder) as holder:
        (holder / _NEW).rmdir()
        os.rename(folder, holder / _NEW)


@contextlib.contextmanager
def _holder(out: Path) -> Iterator[Path]:
    """Create a hidden, locked folder beside `out`, and remove it when the block ends."""
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
    """Remove a holder. If its swap was interrupted, the old folder is restored first."""
    if (holder / _OLD).exists() and (holder / _NEW).exists():
        if out.exists():
            return  # another process has created it meanwhile: keep both
        os.rename(holder / _OLD, out)
    shutil.rmtree(holder, ignore_errors=True)


def _placed(new: Path, out: Path) -> bool:
    """Rename `new` to `out` if nothing exists there, in one atomic step. Returns whether it did."""
    try:
        os.rename(new, out)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True


def _replace(new: Path, out: Path, old: Path) -> None:
    """Replace `out` with `new`, and move the old folder into the holder, which is removed."""
    if exchange(new, out):
        return
    os.rename(out, old)
    os.rename(new, out)  # if this fails, `_clear` restores the old folder


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders atomically. Returns False if the system or the file system can't."""
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
    """Flush everything to the disk before what it replaces is removed: a power cut must not take
    both.

    If nothing is replaced this is left to the system, since waiting for the disk takes longer than
    copying; a power cut within seconds of a save can then leave a folder with holes in it, which
    `verify` finds.
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
