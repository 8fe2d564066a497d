"""A browser tab without a browser: the page's own HTTP events, as its script sends them.

It holds a heartbeat, opens the bundled base, edits plans and joins the queue; what a visitor does
when is for others to say.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time

import httpx


class Visitor:
    """One browser tab."""

    def __init__(self, client: httpx.AsyncClient, events: dict[str, dict]) -> None:
        self.client, self.events = client, events
        self.session = secrets.token_hex(6)
        self.revision = 0
        self._heart = asyncio.create_task(self._heartbeat())

    async def _heartbeat(self) -> None:
        async with self.client.stream("GET", f"gradio_api/heartbeat/{self.session}") as beats:
            async for _ in beats.aiter_bytes():
                pass

    async def leave(self) -> None:
        """Close the tab."""
        self._heart.cancel()
        await asyncio.gather(self._heart, return_exceptions=True)

    def _body(self, name: str, data: list, event_data: object = None) -> dict:
        return {
            "fn_index": self.events[name]["id"],
            "session_hash": self.session,
            "data": data,
            "event_data": event_data,
            "trigger_id": None,
        }

    async def event(self, name: str, fields: list):
        """Join the queue with an event; yields its outputs as they come. `fields` are its last
        inputs; those before are states, which the server has."""
        states = len(self.events[name]["inputs"]) - len(fields)
        data = [None] * states + fields
        joined = await self.client.post("gradio_api/queue/join", json=self._body(name, data))
        joined.raise_for_status()
        shown: list = []
        address = f"gradio_api/queue/data?session_hash={self.session}"
        async with self.client.stream("GET", address) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_generating":
                    shown = _patched(shown, message["output"]["data"])
                    yield shown
                elif message["msg"] == "process_completed":
                    if not message.get("success", True):
                        raise RuntimeError(str(message["output"].get("error")))
                    yield message["output"]["data"]
                elif message["msg"] in ("close_stream", "unexpected_error"):
                    return

    async def open(self) -> None:
        async for data in self.event("choose", ["bundled", None]):
            if isinstance(data[1], dict) and "revision" in data[1]:
                self.revision = data[1]["revision"]

    async def edit(self, text: str) -> float:
        """Seconds until a plan that was typed is answered."""
        asked = {"op": "write", "text": text, "revision": self.revision}
        began = time.perf_counter()
        answer = await self.client.post(
            "gradio_api/run/predict", json=self._body("edit", [None], asked)
        )
        took = time.perf_counter() - began
        answer.raise_for_status()
        view = answer.json()["data"][0]
        self.revision = view["revision"]
        if view["error"]:
            raise RuntimeError(view["error"])
        return took


def _patched(shown: list, new: list) -> list:
    """Gradio sends what changed since the last drawing, as a list of edits for each output."""
    result = list(shown) if shown else [None] * len(new)
    for i, value in enumerate(new):
        if shown and isinstance(value, list):
            for action, path, what in value:
                result[i] = _apply(result[i], path, action, what)
        else:
            result[i] = value
    return result


def _apply(target, path: list, action: str, what):
    if not path:
        return what if action == "replace" else (target or "") + what
    copy = list(target) if isinstance(target, list) else dict(target or {})
    key = path[0]
    if len(path) == 1 and action == "delete":
        copy.pop(key, None)
    else:
        inner = copy.get(key) if isinstance(copy, dict) else copy[key]
        copy[key] = _apply(inner, path[1:], "replace" if action == "add" else action, what)
    return copy
