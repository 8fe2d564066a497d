"""What one session has had healed, and where its runs and texts lie meanwhile.

The healed patient takes the cut one's place wherever the page uses a patient, while the plan is the
one that it was healed for. Knows nothing of how it is trained or shown.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import secrets
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from surgery import Plan
from surgery.io.ownership import temporary
from surgery.progress import Turn

if TYPE_CHECKING:
    from surgery.healing import Healed, Settings

_SALT = secrets.token_hex(16)  # so that nobody can guess another session's folder


class Clinic:
    """Lives in a `gr.State`: one for each open page, never shared."""

    def __init__(self) -> None:
        # Pausing is told by the run itself: what another event draws, its last report may cover.
        self.pausing = threading.Event()
        # One run at a time: a paused one ends its step first.
        self.busy = Turn("Waiting for the current step to finish")
        self._healed: dict[tuple[str, str], Healed] = {}

    def __deepcopy__(self, memo: dict) -> Clinic:
        return Clinic()  # Gradio copies a state's first value for every page that is opened

    def keep(self, spec: str, healed: Healed) -> None:
        """The healed patient of this base and its plan; an older one is let go."""
        self._healed = {(spec, str(healed.plan)): healed}

    def patient(self, spec: str, plan: Plan) -> Healed | None:
        """The healed patient of exactly this plan, if there is one."""
        return self._healed.get((spec, str(plan)))


class Runs:
    """The folder under which all sessions' runs lie while the page is served."""

    def __init__(self) -> None:
        self.folder, remove = temporary("layer-surgery-runs-")
        atexit.register(remove)
        self._running: Counter[str] = Counter()  # runs of each session
        self._gone: set[str] = set()  # sessions that left while a run went on

    def place(self, session: str, spec: str, plan: Plan, settings: Settings) -> Path:
        """Of a session's run: the same for the same settings, so that it is taken up again."""
        self._running[session] += 1
        self._gone.discard(session)
        told = json.dumps([spec, str(plan), settings.as_dict()])
        return self._of(session) / hashlib.sha256(told.encode()).hexdigest()[:32]

    def text(self, session: str, text: str, ending: str) -> Path:
        """A file with a text that somebody brought along: the same one for the same text. What the
        visitor called it stands nowhere on the disk."""
        data = text.encode("utf-8", "surrogatepass")
        place = self._of(session) / "texts" / hashlib.sha256(data).hexdigest()[:32]
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"your text{ending}"
        path.write_bytes(data)
        return path

    def forget(self, session: str) -> None:
        """Remove a session's runs and texts."""
        if self._running[session]:
            self._gone.add(session)
        else:
            del self._running[session]
        shutil.rmtree(self._of(session), ignore_errors=True)

    def ended(self, session: str) -> None:
        """A run ended, which keeps its last step: remove that if the session has gone meanwhile."""
        self._running[session] -= 1
        if session in self._gone and not self._running[session]:
            del self._running[session]
            self._gone.discard(session)
            shutil.rmtree(self._of(session), ignore_errors=True)

    def _of(self, session: str) -> Path:
        return self.folder / hashlib.sha256(f"{_SALT}{session}".encode()).hexdigest()
