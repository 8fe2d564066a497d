"""A piece of the page whose HTML, CSS and JavaScript lie beside its Python, in files of their own.

Its markup never changes: the JavaScript draws `props.value` into it, as text, so nothing that comes
from a model or a file can become markup.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gradio as gr

from .modules import bundle


class LiveHTML(gr.HTML):
    """A `gr.HTML` made of `<stem>.html` and `<stem>.mjs`; its CSS is loaded by the page.

    They lie beside the module of the subclass. The JavaScript is an ES module that exports
    `mount({element, trigger, props, watch})`, the four as Gradio hands them to `js_on_load`.
    """

    stem = ""

    def __init__(self, value: dict | None = None, **options) -> None:
        here = Path(str(sys.modules[type(self).__module__].__file__)).parent
        super().__init__(
            value=value,
            html_template=self.fill_in((here / f"{self.stem}.html").read_text(encoding="utf-8")),
            js_on_load=bundle(here / f"{self.stem}.mjs"),
            apply_default_css=False,
            **options,
        )

    def fill_in(self, template: str) -> str:
        """The markup, from the text of `<stem>.html`. For subclasses that list things in it."""
        return template

    def api_info(self) -> dict:
        """The schema of the value in the API's description."""
        return {"type": "object"}
