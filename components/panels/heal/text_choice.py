"""Choosing the text that healing trains on: what the base writes, a file of one's own, a data set.

Knows how the choice is laid out and what settings come of it. The command line has the same three
(`--text`, `--data`, or neither).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from components.services.deployment import current
from components.widgets.text_file.text_file import TextFile, chosen
from surgery import SurgeryError

if TYPE_CHECKING:
    from surgery.healing import Settings

SAMPLED, FILE, DATA = "what the base itself writes", "a file of yours", "a data set on the Hub"
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}
_LONGEST = 200  # characters of a data set's name


@dataclass(frozen=True)
class TextChoice:
    """The components, for the panel to take as inputs."""

    kind: gr.Dropdown
    file: TextFile
    data: gr.Textbox

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What `told` takes."""
        return [self.kind, self.file, self.data]


def text_choice(kind: gr.Dropdown) -> TextChoice:
    """Lay out what belongs to each kind, under the row with `kind` in it."""
    file = TextFile(visible=False, elem_id="heal-file")
    with gr.Row(elem_classes="fields", visible=False, elem_id="heal-data-row") as row:
        data = gr.Textbox(
            label="Data set",
            placeholder="org/name, or org/name:subset",
            info="Its training split is streamed: only as much as is read.",
            max_length=_LONGEST,
            elem_id="heal-data",
        )

    def show(kind: str) -> tuple[dict, dict]:
        return gr.update(visible=kind == FILE), gr.update(visible=kind == DATA)

    kind.input(show, kind, [file, row], queue=False, **_QUIET)
    return TextChoice(kind, file, data)


def kind_of_text() -> gr.Dropdown:
    """The list to choose from, in the row that is being built."""
    # On a public page the Hub is not asked in the owner's name, nor read without bounds.
    return gr.Dropdown(
        [SAMPLED, FILE] if current().public else [SAMPLED, FILE, DATA],
        value=SAMPLED,
        label="Text",
        info="The first needs no data and no network.",
        elem_id="heal-text",
    )


def told(
    settings: Settings, kind: object, file: object, data: object, store: Callable[[str, str], Path]
) -> Settings:
    """The settings with the text that was chosen. `store` puts a text with an ending into a file;
    no other file is ever named. Raises `SurgeryError`."""
    if kind == SAMPLED:
        return settings
    if kind == FILE:
        found = chosen(file)
        return replace(settings, text=str(store(found.text, found.ending)))
    if kind == DATA:
        from surgery.texts import check_name

        if current().public:
            raise SurgeryError("Data sets are not read on a public page: bring a file of its text.")
        name = str(data or "").strip()
        if not name:
            raise SurgeryError("Name a data set on the Hub, as org/name or org/name:subset.")
        check_name(name[:_LONGEST].partition(":")[0])
        return replace(settings, data=name[:_LONGEST])
    raise SurgeryError("Choose the text to train on from the list.")
