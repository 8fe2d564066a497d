"""Wait for a program that was started, and stop it if the work is stopped."""

from __future__ import annotations

import subprocess

from surgery.progress import Progress

_LOOK = 0.2  # seconds


def wait_for(process: subprocess.Popen, what: str, progress: Progress) -> int:
    """Report progress under the name `what` until the program ends, and return its status. Kills it
    if `progress` raises."""
    with process:
        try:
            while process.poll() is None:
                progress(what, 0, 0)
                try:
                    process.wait(_LOOK)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            raise
    return process.returncode


def last_words(printed: bytes, most: int) -> str:
    """The end of what a program printed, on one line."""
    return " ".join(printed.decode("utf-8", "replace").split())[-most:]
