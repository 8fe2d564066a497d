"""Serve two of Gradio's scripts without work that serves no purpose (Gradio 6.31).

- Gradio counts the seconds that an event takes, sixty times a second, and never stops counting
  those of its first loading screen: an open page takes 5 % of a processor for as long as it is
  open. No event of this page shows its seconds, so a counter here counts once.
- With every message of the server, Gradio passes its loading status to each component that any
  event ever changed, and copies all values for that: a quarter of what a page does while texts
  stream. Here a status that hasn't changed stays the same object, and only new ones are passed on.

Each can go once Gradio's own script does without.
"""

from __future__ import annotations

import re
from pathlib import Path

from gradio.routes import BUILD_PATH_LIB
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# (script, what it does for nothing, what it does here), minified. Each is there once.
CHANGES = [
    # `(performance.now() - since) / 1e3), counting && again() })`: the last part goes.
    ("statustracker", r"(\(performance\.now\(\)-\w+\(\w+\)\)/1e3\)),\w+&&\w+\(\)\}\)", r"\1})"),
    # Statuses of other events are made anew to clear these fields; here if there are any.
    (
        "statustracker",
        r"(\w+)\.fn_index!==\w+\.fn_index&&(?=\(this\.current\[\w+\]=\{\.\.\.\1,used_cache:null,"
        r"cache_duration:null,avg_time:null,cache_event_id:null\}\))",
        r"\g<0>(\1.used_cache??\1.cache_duration??\1.avg_time??\1.cache_event_id??0)!==0&&",
    ),
    # `Object.entries(all).map(([id, status]) => hand on)`: only statuses that are new objects.
    (
        "Blocks",
        r"(update_loading_stati_state\(\)\{)(await Promise\.all\(Object\.entries\()"
        r"(this\.loading_stati\.current)\)\.map",
        r"\1let had=this.had||{};this.had={...\3};\2this.had).filter(([e,t])=>had[e]!==t).map",
    ),
]
_A_DAY = {"Cache-Control": "max-age=86400"}


def scripts() -> dict[str, str]:
    """The changed scripts by file name, as they are served here."""
    found: dict[str, str] = {}
    for stem, theirs, ours in CHANGES:
        for path in Path(BUILD_PATH_LIB).glob(f"{stem}-*.js"):
            text = found.get(path.name) or path.read_text(encoding="utf-8")
            text, places = re.subn(theirs, ours, text)
            if places:
                found[path.name] = text
    return found


def routes() -> list[Route]:
    """What serves them in place of Gradio's own."""
    return [_route(name, text) for name, text in scripts().items()]


def _route(name: str, text: str) -> Route:
    def answer(request: Request) -> Response:
        return Response(text, media_type="text/javascript", headers=_A_DAY)

    return Route(f"/assets/{name}", answer)
