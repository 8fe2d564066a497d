"""A picture by plotly.js: drawn in place, in the page's own colours, with its numbers to take away.

Uses the plotly.min.js that lies in the plotly wheel and is served from there, so nothing is fetched
from elsewhere.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson  # as Gradio does, so that NaN is null
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from components.widgets.html_component import LiveHTML

_PLOTLY = find_spec("plotly")
assert _PLOTLY is not None, "the page needs plotly"
LIBRARY = Path(_PLOTLY.origin or "").parent / "package_data" / "plotly.min.js"
# Relative, so that it holds under any address that the page is served from; and it says nothing of
# where the file lies.
_ADDRESS = "plotly.min.js"


def _library(request: Request) -> FileResponse:
    return FileResponse(LIBRARY, media_type="text/javascript")


ROUTE = Route(f"/{_ADDRESS}", _library)  # for the page's server


class PlotlyView(LiveHTML):
    """The value is {title, hint, data, layout} and, if wanted, `table` {columns, rows}, `link`, and
    `of`: what it was made of, as in `page_plan.made_of`. The figure says once that is outdated.

    `link` is {sources, strip, emits}: the x axis is positions of the patient, each showing that
    layer of the base, or, with `strip` “base”, layers of the base; hovering and selecting go to the
    strip and come from it. Or it is {text}: the x axis is the tokens of that side's text in Talk,
    and hovering and selecting go there. Emits `select` when layers are selected there or here, if
    `emits`, and with `points` the index in the `customdata` of a point that is clicked.
    """

    stem = "plotly_view"

    def postprocess(self, value: Any) -> Any:
        """As text, with the place of the library: properties beside the value don't reach a hidden
        tab."""
        if not value:
            return value
        figure = orjson.dumps({**value, "plotly": _ADDRESS}, option=orjson.OPT_SERIALIZE_NUMPY)
        return {"json": figure.decode()}
