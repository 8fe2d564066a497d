"""Saved checkpoints that wait to be fetched: where they lie, for how long, and at which address.

An address holds a secret instead of a place: it says nothing of the machine, and nobody guesses it.
It is good until its session saves something else, leaves, or an hour has passed. Knows files and
addresses; what is in the files is the panel's affair.
"""

from __future__ import annotations

import atexit
import hashlib
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from surgery.owned import temporary

_KEPT = 3600  # seconds for which a download waits
_SALT = secrets.token_hex(16)  # so that nobody can guess another session's folder
_ADDRESS = "downloads"  # relative, so that it holds under any address the page is served from


@dataclass(frozen=True)
class _Offer:
    session: str
    path: Path
    since: float


class Downloads:
    """One folder for each session, for an hour; and the addresses of the files in them."""

    def __init__(self) -> None:
        self.folder, remove = temporary("layer-surgery-downloads-")
        atexit.register(remove)
        self._lock = threading.Lock()
        self._offers: dict[str, _Offer] = {}  # by the secret in their address

    @classmethod
    @cache
    def shared(cls) -> Downloads:
        """The one of this process."""
        return cls()

    def of(self, session: str) -> Path:
        """The empty folder of a session; what it had, and what others forgot, is removed."""
        self.forget(session)
        with self._lock:
            self._offers = {key: offer for key, offer in self._offers.items() if _waits(offer)}
        for old in self.folder.iterdir():
            if time.time() - old.stat().st_mtime > _KEPT:
                shutil.rmtree(old, ignore_errors=True)
        folder = self._place(session)
        folder.mkdir()
        return folder

    def offer(self, session: str, path: Path) -> str:
        """The address at which a finished file of the session's folder can be fetched from now
        on."""
        secret = secrets.token_urlsafe(24)
        with self._lock:
            self._offers[secret] = _Offer(session, path, time.time())
        return f"{_ADDRESS}/{secret}/{quote(path.name)}"

    def find(self, secret: str, name: str) -> Path | None:
        """The file that was offered at this address, if it still waits there."""
        with self._lock:
            offer = self._offers.get(secret)
        if offer is None or offer.path.name != name or not _waits(offer):
            return None
        return offer.path if offer.path.is_file() else None

    def forget(self, session: str) -> None:
        """Remove what a session saved."""
        with self._lock:
            self._offers = {k: o for k, o in self._offers.items() if o.session != session}
        shutil.rmtree(self._place(session), ignore_errors=True)

    def _place(self, session: str) -> Path:
        return self.folder / hashlib.sha256(f"{_SALT}{session}".encode()).hexdigest()


def _waits(offer: _Offer) -> bool:
    return time.time() - offer.since <= _KEPT


def _fetch(request: Request) -> Response:
    """From where it lies, piece by piece; a client may ask for a part, to go on with one."""
    given = request.path_params
    path = Downloads.shared().find(given["secret"], given["name"])
    if path is None:
        return PlainTextResponse("Nothing waits at this address (any more): save again.", 404)
    return FileResponse(path, filename=path.name, headers={"cache-control": "private, no-store"})


ROUTE = Route(f"/{_ADDRESS}/{{secret}}/{{name}}", _fetch)  # for the page's server
