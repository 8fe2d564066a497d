"""A Hugging Face Hub in miniature: one process, local folders, range requests, a log of them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """`repos` maps ids to folders. `requests` holds (method, path, range) of each request."""

    def __init__(self) -> None:
        self.port = 0
        self.server: ThreadingHTTPServer | None = None
        self.reset()
        self.url = f"http://127.0.0.1:{self.port}"

    def reset(self) -> None:
        """As new, at the same address."""
        self.repos: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None  # bytes of a whole file, then the line goes dead
        self.cut_parts: list[int] = []  # the same, for the next parts of weights behind the header
        self.claimed: dict[str, int] = {}  # sizes that it claims files have
        self.tokens: set[str | None] = set()  # what came as authorization
        self.faults: dict[str, str] = {}  # by repository, see `misbehave`
        if self.server is None:
            self._open()

    def _open(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *args) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.tokens.add(request.headers.get("authorization"))
        self.requests.append((request.command, path, request.headers.get("range")))
        if self.faults and self.misbehave(request, path):
            return None
        if m := re.fullmatch(r"/api/models/(.+?)(?:/revision/([^/]+))?", path):
            if "/tree/" in path:
                return self.tree(request, path)
            return self.info(request, m[1], m[2])
        if m := re.fullmatch(r"/(?:cdn/)?(.+?)/resolve/([^/]+)/(.+)", path):
            return self.file(request, m[1], m[3])
        return self.refuse(request, 404, "EntryNotFound")

    def misbehave(self, request: BaseHTTPRequestHandler, path: str) -> bool:
        """Do what the repository's fault says instead of answering; False where it says nothing of
        this path."""
        part = "range" in request.headers
        faults = (fault for repo, fault in self.faults.items() if f"/{repo}/" in f"{path}/")
        match next(faults, None):
            case "drops":
                request.close_connection = True
                request.connection.close()
            case "500":
                self.refuse(request, 500, "")
            case "html":  # as from the login page of a hotel
                self.send(request, 200, b"<html>Welcome to our WLAN</html>")
            case "loops":
                self.send(request, 302, b"", Location=path)
            case "redirects" if "/resolve/" in path and not path.startswith("/cdn/"):
                self.send(request, 302, b"", Location=f"/cdn{path}")
            case "ignores ranges" if part:
                self.send(request, 200, b"x" * 1_000_000)
            case "sends another range" if part:
                self.send(
                    request, 206, b"x" * 10**6, **{"Content-Range": "bytes 8-1000007/9999999"}
                )
            case "lies about ranges" if part:
                self.send(request, 206, b"x" * 10**6, **{"Content-Range": "bytes 0-9/99999999999"})
            case _:
                return False
        return True

    def info(self, request, repo: str, revision: str | None) -> None:
        if repo not in self.repos:
            return self.refuse(request, 404, "RepoNotFound")
        if revision not in (None, "main", COMMIT):
            return self.refuse(request, 404, "RevisionNotFound")
        siblings = [
            {"rfilename": name, "size": self.claimed.get(name, path.stat().st_size)}
            for name, path in self.files(repo).items()
        ]
        self.send_json(
            request,
            {
                "id": repo,
                "sha": COMMIT,
                "siblings": siblings,
                "cardData": {"license": "mit"},
            },
        )

    def tree(self, request, path: str) -> None:
        repo = path.removeprefix("/api/models/").partition("/tree/")[0]
        entries = [
            {"type": "file", "path": name, "size": path.stat().st_size, "oid": etag(path)}
            for name, path in self.files(repo).items()
        ]
        self.send_json(request, entries)

    def files(self, repo: str) -> dict[str, Path]:
        """Every file of a repository, by its name in the repository."""
        top = self.repos[repo]
        paths = sorted(path for path in top.rglob("*") if path.is_file())
        return {path.relative_to(top).as_posix(): path for path in paths}

    def file(self, request, repo: str, name: str) -> None:
        path = self.repos.get(repo, Path("/nowhere")) / unquote(name)
        if repo in self.gated:
            return self.refuse(request, 403, "GatedRepo")
        if not path.is_file():
            return self.refuse(request, 404, "EntryNotFound")
        raw = path.read_bytes()
        start, end = 0, len(raw)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range") or "")
        if wanted:
            start = int(wanted[1])
            end = min(end, int(wanted[2]) + 1 if wanted[2] else end)
        request.send_response(206 if wanted else 200)
        if wanted:
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(raw)}")
        request.send_header("Content-Length", str(end - start))
        request.send_header("ETag", f'"{etag(path)}"')
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Accept-Ranges", "bytes")
        request.end_headers()
        if request.command == "HEAD":
            return None
        if self.cut_after is not None and not wanted and name.endswith(".safetensors"):
            request.wfile.write(raw[: self.cut_after])
            request.wfile.flush()
            request.connection.close()
            return None
        if self.cut_parts and wanted and start and name.endswith(".safetensors"):
            request.wfile.write(raw[start : start + self.cut_parts.pop(0)])
            request.wfile.flush()
            request.close_connection = True
            return None
        request.wfile.write(raw[start:end])
        return None

    def send_json(self, request, value) -> None:
        self.send(request, 200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    @staticmethod
    def send(request, status: int, body: bytes, **headers: str) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    @staticmethod
    def refuse(request, status: int, code: str) -> None:
        request.send_response(status)
        request.send_header("X-Error-Code", code)
        request.send_header("Content-Length", "0")
        request.end_headers()


def etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:40]
