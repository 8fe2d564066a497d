"""Folders for the healing runs of all sessions, and for the texts that they train on."""

from __future__ import annotations

import atexit
import hashlib
import json
import secrets
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.io.ownership import temporary
from surgery.operation import Operation

if TYPE_CHECKING:
    from surgery.healing import Settings

_SALT = secrets.token_hex(16)  # so that nobody can guess another session's folder


class Runs:
    """A folder for each session, until its page closes and its last run has ended."""

    def __init__(self) -> None:
        self.folder, remove = temporary("layer-surgery-runs-")
        atexit.register(remove)
        self._running: Counter[str] = Counter()  # runs of each session
        self._gone: set[str] = set()  # sessions that left during a run

    def place(self, session: str, identity: str, operation: Operation, settings: Settings) -> Path:
        """Return the folder of a session's run: the same one for the same settings, so that the run
        resumes. `identity` is that of the base's files: a run can't resume on other weights, and
        visitors couldn't remove it to start anew."""
        self._running[session] += 1
        self._gone.discard(session)
        key = json.dumps([operation.spec, identity, str(operation.plan), settings.as_dict()])
        return self._of(session) / hashlib.sha256(key.encode()).hexdigest()[:32]

    def text(self, session: str, text: str, ending: str) -> Path:
        """Write a visitor's text to a file: the same file for the same text. The visitor's own name
        for it is not used."""
        data = text.encode("utf-8", "surrogatepass")
        folder = self._of(session) / "texts" / hashlib.sha256(data).hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"your text{ending}"
        path.write_bytes(data)
        return path

    def forget(self, session: str) -> None:
        """Delete a session's runs and texts."""
        if self._running[session]:
            self._gone.add(session)
        else:
            del self._running[session]
        shutil.rmtree(self._of(session), ignore_errors=True)

    def ended(self, session: str) -> None:
        """Note that a run ended. It has written its last step: delete that if the session left."""
        self._running[session] -= 1
        if session in self._gone and not self._running[session]:
            del self._running[session]
            self._gone.discard(session)
            shutil.rmtree(self._of(session), ignore_errors=True)

    def _of(self, session: str) -> Path:
        return self.folder / hashlib.sha256(f"{_SALT}{session}".encode()).hexdigest()
