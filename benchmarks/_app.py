"""The app as a process of its own, for benchmarks that open its page."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def serving(folder: str, options: Sequence[str]) -> Iterator[str]:
    """Start the app in a folder; its address, as soon as it answers. It is stopped at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), "--no-browser", f"--port={port}", *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    sys.exit("The app did not start.")
                time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait(20)
