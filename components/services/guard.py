"""Middleware of a public page: lets through small requests to the few routes that the page uses.

Gradio offers uploads, recordings, its own statistics and more to any client. This page needs none
of them, so it blocks them. The limits for each address are in `address_limits`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

from components.gradio_compat import queue_state
from components.gradio_compat.readable_errors import log
from surgery import SurgeryError

from .address_limits import Shares
from .client_address import client

MAX_BODY = 1_000_000  # bytes; the longest plan and text together are far below
_SECONDS = 30  # for a request body to arrive
_DEEPEST = 40  # levels of nesting in a body; figures sent back by the page have ten
_SESSION = r"[\w-]{1,64}"
_API = "/gradio_api"
# GET routes: the page, its assets and events, and the descriptions of the endpoints.
_GETS = (
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(?:/\d{1,4})?"
    r"|/(?:assets|static)/[\w./@+-]+|/plotly\.min\.js|/downloads/[\w-]+/[^/]+"
    rf"|{_API}/(?:info/?|openapi\.json|startup-events|theme\.css|app_id/?|queue/(?:data|status)"
    rf"|heartbeat/{_SESSION}|call/(?:NAMES)/{_SESSION}|mcp/?|mcp/schema)"
)
_SIGN_IN = r"|/login/(?:huggingface|callback)|/logout"
_POSTS = rf"{_API}/(?:queue/join|cancel|reset|mcp|(?:run|api|call)/(?:predict|NAMES))/?"
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),  # the plan and the prompt stand in the address
]
_UNREADABLE = "The request body must be a JSON object."
Receive = Callable[[], Awaitable[dict]]
Send = Callable[[dict], Awaitable[None]]


class _Refusal(Exception):
    """A refused request: the HTTP status and the reason."""


class Guard:
    """ASGI middleware (https://asgi.readthedocs.io). `names` are the endpoints for other programs:
    to Gradio an event of the page is one too, if its name is guessed. The page itself says
    `predict`, with an event's number. `people` may share an address; `proxied` says that all
    requests come through a proxy; with `signs_in` visitors can sign in at the Hub."""

    def __init__(
        self,
        app: Callable[..., Awaitable[Any]],
        names: Iterable[str] = (),
        people: int = 40,
        proxied: bool = False,
        signs_in: bool = False,
    ) -> None:
        self.app = app
        words = "|".join(map(re.escape, names)) or "(?!)"
        self._gets = re.compile(_GETS.replace("NAMES", words) + (_SIGN_IN if signs_in else ""))
        self._posts = re.compile(_POSTS.replace("NAMES", words))
        self._shares, self._proxied = Shares(people), proxied

    async def __call__(self, scope: dict, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page uses none
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope, begun = self._signed(scope), False

        async def answered(message: dict) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        try:
            with self._shares.request(scope["client"][0]):
                await self._pass_on(scope, receive, answered)
        except _Refusal as refusal:
            await _answer(answered, *refusal.args)
        except SurgeryError as error:
            await _answer(answered, 429, str(error))
        except Exception as error:  # values that crash Gradio's routes
            log(error)
            if begun:
                await send({"type": "http.response.body", "body": b""})
            else:
                await _answer(answered, 400, "The request could not be processed.")

    def opens(self, method: str, path: str) -> bool:
        """Whether this method is allowed at this path."""
        if "/../" in f"{path}/" or "\\" in path or "\0" in path:
            return False
        reads, writes = self._gets.fullmatch(path), self._posts.fullmatch(path)
        return bool(
            {
                "GET": reads,
                "HEAD": reads,
                "POST": writes,
                "DELETE": writes and f"{path}/".startswith(f"{_API}/mcp/"),
                "OPTIONS": reads or writes,
            }.get(method)
        )

    def _signed(self, scope: dict) -> dict:
        """Return the scope with the client's address as `client` and as the only X-Forwarded-For:
        for MCP the app calls itself with the headers that it received."""
        headers = [(k, v) for k, v in scope["headers"] if k != b"x-forwarded-for"]
        forwarded = [v.decode("latin-1") for k, v in scope["headers"] if k == b"x-forwarded-for"]
        host, port = scope.get("client") or (None, 0)
        address = client(host, forwarded, self._proxied)
        headers.append((b"x-forwarded-for", address.encode()))
        return {**scope, "headers": headers, "client": (address, port)}

    async def _pass_on(self, scope: dict, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        if not self.opens(method, path or "/"):
            raise _Refusal(403, "This path or method is not available.")
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if "deep_link" in query:
            raise _Refusal(403, "Gradio's deep links are disabled: use the Link button.")
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or int(claimed) > MAX_BODY:
            raise _Refusal(413, "The request is too large for this page.")
        blocks = getattr(scope.get("app"), "get_blocks", lambda: None)()
        address = scope["client"][0]
        if method == "POST":
            body = await _read(receive)
            given = _parsed(body)
            if f"{path}/".startswith(f"{_API}/mcp/"):
                given = {}
            elif not isinstance(given, dict):
                raise _Refusal(400, _UNREADABLE)
            name = given.get("session_hash")
            receive = _again(body, receive)
            if blocks and not path.startswith((f"{_API}/cancel", f"{_API}/reset")):
                queue = queue_state.queue_of(blocks)
                self._shares.place(queue, address, name if _is_name(name) else None)
        else:
            beats = path.startswith(f"{_API}/heartbeat/")
            name = path.rpartition("/")[2] if beats else query.get("session_hash", [None])[0]
        if name is not None and not _is_name(name):
            raise _Refusal(400, "session_hash must be 1 to 64 letters, digits, - or _.")
        if blocks and (name is not None or method == "POST"):
            self._shares.session(blocks.state_holder, address, name)
        if blocks and method == "GET":
            _check_there(queue_state.queue_of(blocks), path, name)
        await self.app(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    """Read a request body. Raises `_Refusal` if it is too large or arrives too slowly."""
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Refusal(400, "The request was interrupted.")
                body += message.get("body", b"")
                if len(body) > MAX_BODY:  # no content-length, or a false one
                    raise _Refusal(413, "The request is too large for this page.")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise _Refusal(408, "The request body took too long to arrive.") from None


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that replays the body, then continues with the original one."""
    left: list[dict] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> dict:
        return left.pop() if left else await receive()

    return read


def _parsed(body: bytes) -> Any:
    """Parse a JSON body. Raises `_Refusal` if it can't be parsed or serialised again."""
    try:
        given = json.loads(body)
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # also lone surrogates, NaN and infinite numbers
        raise _Refusal(400, _UNREADABLE) from None
    level, depth = [given], 0
    while level := [v for one in level for v in _within(one) if isinstance(v, (dict, list))]:
        depth += 1
        if depth > _DEEPEST:
            raise _Refusal(400, "The request body is nested too deeply.")
    return given


def _within(value: Any) -> Iterable:
    return (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    )


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(re.fullmatch(_SESSION, name, re.ASCII))


def _check_there(queue: Any, path: str, session: str | None) -> None:
    """Raise `_Refusal` for a stream of an unknown event or session."""
    there = True
    if path == f"{_API}/queue/data":
        there = queue_state.has_messages(queue, session)
    elif path.startswith(f"{_API}/call/"):
        there = queue_state.has_event(queue, path.rpartition("/")[2])
    if not there:
        raise _Refusal(404, "This request does not exist, or has ended.")


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"detail": message, "error": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
