"""Save a plan of any base as GGUF: as a folder first, then with llama.cpp's own converter.

The converter is `convert_hf_to_gguf.py` of a copy of llama.cpp that the user has.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from surgery.errors import SaveError
from surgery.io.atomic import atomic_files
from surgery.io.output_target import check_file_target, resolve
from surgery.io.process import last_words, wait_for
from surgery.progress import Progress, silent

from .file import open_gguf_file
from .save import MAGIC, SUFFIX, Saved

SCRIPT = "convert_hf_to_gguf.py"
VARIABLE = "LLAMA_CPP"  # names a folder that has it
_OUTPUT = 2000  # characters of the converter's last words


def find_converter(given: Path | None, base: str, plan: str, out: Path) -> Path:
    """The converter: the one given, or that of the folder in the environment variable LLAMA_CPP.
    Raises `SaveError` that shows how to do without."""
    named = os.environ.get(VARIABLE, "")
    path = given or (Path(named) if named else None)
    if path is not None:
        path = path.expanduser()
        path = path / SCRIPT if path.is_dir() else path
        if not path.is_file():
            raise SaveError(f"There is no file {path}. Name llama.cpp's {SCRIPT}.")
        return path.resolve()
    folder = out.with_suffix("")
    save = shlex.join(["python", "-m", "surgery", "save", base, plan, str(folder)])
    convert = shlex.join(["python", SCRIPT, str(folder), "--outfile", str(out)])
    raise SaveError(
        f"{base[:200]} is not a GGUF file, so writing {out.name} takes llama.cpp's converter: "
        f"name it with --converter path/to/{SCRIPT}, or set {VARIABLE} to llama.cpp's folder. By "
        f"hand it is: {save} && {convert}"
    )


def command(converter: Path, folder: Path, out: Path) -> list[str]:
    """The converter's command line, run by this Python."""
    return [sys.executable, str(converter), str(folder), "--outfile", str(out)]


def convert(
    save: Callable[[Path], Path],
    converter: Path,
    out: Path,
    size: int,
    layers: int,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Saved:
    """Write `out` with the converter, from the folder that `save` writes to the path it is given.

    `size` is that folder's, in bytes, and `layers` what the result has to have. The folder is
    removed again; `out` appears whole or not at all. Raises `SaveError` with the converter's last
    words if it fails.
    """
    out = resolve(out)
    check = partial(check_file_target, begins=MAGIC, overwrite=overwrite)
    with atomic_files([out], 2 * size, check, overwrite) as partial_folder:
        folder = save(partial_folder / (out.name.removesuffix(SUFFIX) or "model"))
        made = partial_folder / out.name
        _run(command(converter, folder, made), progress)
        if not made.is_file():
            raise SaveError(f"{converter.name} ended without writing {out.name}.")
        written = open_gguf_file(made)
        if written.depth != layers:
            raise SaveError(
                f"{converter.name} wrote {written.depth} layers instead of {layers}: the model "
                "may have layers that it adds or leaves out. Nothing was saved."
            )
        bytes_ = made.stat().st_size
    values = sum(tensor.values for tensor in written.tensors)
    return Saved((out,), layers, values, bytes_)


def _run(arguments: list[str], progress: Progress) -> None:
    """Run the converter, and stop it if `progress` raises."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if wait_for(process, "Converting to GGUF", progress):
            log.seek(0)
            words = last_words(log.read(), _OUTPUT)
            raise SaveError(f"{Path(arguments[1]).name} failed: {words}")
