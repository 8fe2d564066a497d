"""Saved checkpoints as downloads: their folders, addresses and lifetime.

An address holds a secret instead of a path: it reveals nothing of the machine and can't be guessed.
A download is available for an hour, or until its session saves something else or ends. Clients can
make up sessions, so the downloads of one network address may use at most half of a public page's
storage; the oldest are deleted first.
"""

from __future__ import annotations

import atexit
import hashlib
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from surgery.io.ownership import temporary

from .client_address import Visitor, party

_KEPT = 3600  # seconds for which a download waits
_SALT = secrets.token_hex(16)  # so that nobody can guess another session's folder
_ADDRESS = "downloads"  # relative, so that it holds under any address the page is served from


@dataclass(frozen=True)
class _Offer:
    session: str
    path: Path
    since: float
    whose: str  # network address


class Downloads:
    """One folder for each session's save, for an hour; and the addresses of the files in them."""

    def __init__(self, quota: int | None = None) -> None:
        """`quota` is the size of a public page's storage in bytes."""
        self._quota = quota
        self.folder, remove = temporary("layer-surgery-downloads-")
        atexit.register(remove)
        self._lock = threading.Lock()
        self._offers: dict[str, _Offer] = {}  # by the secret in their address

    def __len__(self) -> int:
        """How many files are offered."""
        return len(self._offers)

    def folder_of(self, session: str, visitor: Visitor | None = None) -> Path:
        """Return a new, empty folder for a session: a save that was stopped may still be clearing
        up its own. The session's previous download and expired ones are deleted, and the oldest
        ones of the visitor's address if they use too much storage."""
        self.forget(session)
        if visitor and self._quota:
            self._delete_oldest(party(visitor.address), self._quota // 2)
        with self._lock:
            self._offers = {key: offer for key, offer in self._offers.items() if _waits(offer)}
        for old in self.folder.iterdir():
            if time.time() - old.stat().st_mtime > _KEPT:
                shutil.rmtree(old, ignore_errors=True)
        folder = self.folder / f"{_prefix(session)}{secrets.token_hex(16)}"
        folder.mkdir()
        return folder

    def offer(self, session: str, path: Path, visitor: Visitor | None = None) -> str:
        """Offer a finished file in the session's folder; returns its address."""
        secret = secrets.token_urlsafe(24)
        whose = party(visitor.address) if visitor else ""
        with self._lock:
            self._offers[secret] = _Offer(session, path, time.time(), whose)
        return f"{_ADDRESS}/{secret}/{quote(path.name)}"

    def find(self, secret: str, name: str) -> Path | None:
        """Return the file that is offered at this address, if any."""
        with self._lock:
            offer = self._offers.get(secret)
        if offer is None or offer.path.name != name or not _waits(offer):
            return None
        return offer.path if offer.path.is_file() else None

    def forget(self, session: str) -> None:
        """Delete a session's download."""
        with self._lock:
            self._offers = {k: o for k, o in self._offers.items() if o.session != session}
        for folder in self.folder.glob(f"{_prefix(session)}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _delete_oldest(self, whose: str, most: int) -> None:
        """Delete the oldest files of an address until the rest takes at most `most` bytes."""
        with self._lock:
            mine = [offer for offer in self._offers.values() if offer.whose == whose]
        sizes = [_size(offer.path) for offer in mine]
        for i, offer in enumerate(mine):
            if sum(sizes[i:]) <= most:
                break
            self.forget(offer.session)

    def route(self) -> Route:
        """The route for the page's server that answers at these addresses."""
        return Route(f"/{_ADDRESS}/{{secret}}/{{name}}", self._fetch)

    def _fetch(self, request: Request) -> Response:
        """Stream the file; a client may request a part, to resume a download."""
        given = request.path_params
        path = self.find(given["secret"], given["name"])
        if path is None:
            return PlainTextResponse("This download has expired or never existed: save again.", 404)
        headers = {"cache-control": "private, no-store"}
        return FileResponse(path, filename=path.name, headers=headers)


def _prefix(session: str) -> str:
    """What the names of a session's folders begin with."""
    return hashlib.sha256(f"{_SALT}{session}".encode()).hexdigest()[:32]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # deleted meanwhile
        return 0


def _waits(offer: _Offer) -> bool:
    return time.time() - offer.since <= _KEPT
