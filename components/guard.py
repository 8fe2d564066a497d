"""What reaches the app of a public page at all: small requests to the few addresses it answers.

Knows HTTP alone. Gradio offers uploads, recordings and more to any client; this page has no use for
them, so they are not there.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

MAX_BODY = 1_000_000  # bytes; the longest plan and text together are far below
_POSTS = r"(?:/gradio_api)?/(?:queue/join|cancel|reset|mcp|(?:run|api|call|call/v2)/(?:{names}))/?"
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),  # the plan and the prompt stand in the address
]
Receive = Callable[[], Awaitable[dict]]
Send = Callable[[dict], Awaitable[None]]


class Guard:
    """ASGI middleware (https://asgi.readthedocs.io). `names` are the endpoints for other programs:
    to Gradio an event of the page is one too, if its name is guessed. The page itself says
    `predict`, with an event's number."""

    def __init__(self, app: Callable[..., Awaitable[Any]], names: Iterable[str] = ()) -> None:
        self.app = app
        self._posts = re.compile(_POSTS.format(names="|".join(map(re.escape, ["predict", *names]))))

    async def __call__(self, scope: dict, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        reading = method in ("GET", "HEAD", "OPTIONS")
        if not (reading or (method in ("POST", "DELETE") and self._posts.fullmatch(path))):
            await _refuse(send, 403, b"This page does not take that.")
            return
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or int(claimed) > MAX_BODY:
            await _refuse(send, 413, b"That is too large for this page.")
            return
        seen = 0

        async def bounded() -> dict:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MAX_BODY:  # a length that was not claimed, or was a lie
                return {"type": "http.disconnect"}
            return message

        async def answered(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await self.app(scope, bounded, answered)


async def _refuse(send: Send, status: int, said: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": said})
