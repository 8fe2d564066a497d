"""Pack a checkpoint's folder into one file to download."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from surgery.errors import SaveError
from surgery.progress import Progress

from .output_target import explained

_CHUNK = 8 << 20


def zip_folder(folder: Path, out: Path, progress: Progress) -> Path:
    """Put the folder into the zip file `out`, not compressed: weights don't get smaller.

    Each file is removed once it is in, so that both together take little more room than one.
    `progress` may raise to cancel, and then `out` is removed. Raises `SaveError`, also if `out`
    exists already.
    """
    if out.exists():
        raise SaveError(f"{out} exists already: choose another name.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    done = 0

    def add(size: int) -> None:
        nonlocal done
        done += size
        progress("Packing it for download", done, total)

    try:
        with explained(out):
            total = sum(path.stat().st_size for path in files)
            with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
                for path in files:
                    _add(archive, path, f"{folder.name}/{path.relative_to(folder).as_posix()}", add)
                    path.unlink()
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    shutil.rmtree(folder)
    return out


def _add(archive: zipfile.ZipFile, path: Path, name: str, add: Callable[[int], None]) -> None:
    info = zipfile.ZipInfo.from_file(path, name)
    with open(path, "rb") as source, archive.open(info, "w", force_zip64=True) as to:
        while chunk := source.read(_CHUNK):
            to.write(chunk)
            add(len(chunk))
