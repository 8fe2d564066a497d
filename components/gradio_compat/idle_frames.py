"""Keep Gradio's page from asking for animation frames while nothing happens.

Gradio 6.31 counts the seconds that an event takes, sixty times a second, and never stops counting
those of its first loading screen: an open page takes 5 % of a processor for as long as it is open.
No event of this page shows its seconds, so a counter here counts once. This can go once a page
that does nothing asks for no frames.
"""

from __future__ import annotations

import re
from pathlib import Path

from gradio.routes import BUILD_PATH_LIB
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Minified, `(performance.now() - since) / 1e3), counting && again() })`; the last part goes.
_COUNTER = re.compile(r"(\(performance\.now\(\)-\w+\(\w+\)\)/1e3\)),\w+&&\w+\(\)\}\)")
_A_DAY = {"Cache-Control": "max-age=86400"}


def scripts() -> dict[str, str]:
    """Gradio's scripts with such a counter, by file name, as they are served here."""
    found = {}
    for path in Path(BUILD_PATH_LIB).glob("statustracker-*.js"):
        text, counters = _COUNTER.subn(r"\1})", path.read_text(encoding="utf-8"))
        if counters:
            found[path.name] = text
    return found


def routes() -> list[Route]:
    """What serves them in place of Gradio's own."""
    return [_route(name, text) for name, text in scripts().items()]


def _route(name: str, text: str) -> Route:
    def answer(request: Request) -> Response:
        return Response(text, media_type="text/javascript", headers=_A_DAY)

    return Route(f"/assets/{name}", answer)
