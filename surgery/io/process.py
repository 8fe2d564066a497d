"""Run another program, and stop it if the work is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from surgery.errors import SaveError, SurgeryError
from surgery.progress import Progress

_LOOK = 0.2  # seconds
_OUTPUT = 600  # characters of a program's last words


def run(
    arguments: Sequence[str],
    given: str,
    name: str,
    what: str,
    failure: str,
    progress: Progress,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a program prints on stdout, with `given` on its stdin. `what` is the name of its
    progress. Raises `SaveError` with `failure` and its last words if it fails, `SurgeryError` if it
    can't be started."""
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        stdin.write(given.encode())
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                arguments,
                stdin=stdin,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise SurgeryError(f"{name} can't be started: {error.strerror or error}.") from error
        status = wait_for(process, what, progress)
        out.seek(0)
        err.seek(0)
        if status:
            words = last_words(err.read() or out.read(), _OUTPUT)
            raise SaveError(f"{failure}: {words}")
        return out.read().decode("utf-8", "replace")


def wait_for(process: subprocess.Popen, what: str, progress: Progress) -> int:
    """Report progress under the name `what` until the program ends, and return its status. Stops it
    (see `stop`) if `progress` raises."""
    with process:
        try:
            while process.poll() is None:
                progress(what, 0, 0)
                try:
                    process.wait(_LOOK)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            stop(process)
            raise
    return process.returncode


def stop(process: subprocess.Popen) -> None:
    """Kill a program that was started with `start_new_session`, and what it has started."""
    if hasattr(os, "killpg"):
        # macOS permits no signal to a group whose programs have all ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def last_words(printed: bytes, most: int) -> str:
    """The end of what a program printed, on one line."""
    return " ".join(printed.decode("utf-8", "replace").split())[-most:]
