"""A piece of the page whose HTML, CSS and JavaScript lie beside its Python, one file for each.

Its markup never changes: the JavaScript draws `props.value` into it, as text, so nothing that comes
from a model or a file can become markup.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gradio as gr


class LiveHTML(gr.HTML):
    """A `gr.HTML` made of `<stem>.html` and `<stem>.js`; its CSS is the page's to load.

    They lie beside the module of the subclass. One with more JavaScript than fits one file names
    the stems of all in `scripts`, in order.
    """

    stem = ""
    scripts: tuple[str, ...] = ()

    def __init__(self, value: dict | None = None, **options) -> None:
        here = Path(sys.modules[type(self).__module__].__file__).parent
        scripts = [here / f"{stem}.js" for stem in self.scripts or (self.stem,)]
        super().__init__(
            value=value,
            html_template=(here / f"{self.stem}.html").read_text(encoding="utf-8"),
            js_on_load="\n".join(path.read_text(encoding="utf-8") for path in scripts),
            apply_default_css=False,
            **options,
        )

    def api_info(self) -> dict:
        """What the API's schema says of the value."""
        return {"type": "object"}
