"""Choose the text to train on: what the base writes, a file of the visitor's own, or a data set.

The command line offers the same three (`--text`, `--data`, or neither).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from components.parts import QUIET
from components.services.deployment import Deployment
from components.widgets.text_file.text_file import TextFile, chosen
from surgery import SurgeryError

if TYPE_CHECKING:
    from surgery.healing import Settings

SAMPLED, FILE, DATA = "what the base itself writes", "a file of yours", "a data set on the Hub"
_LONGEST = 200  # characters of a data set's name


@dataclass(frozen=True)
class TextChoice:
    """The components."""

    kind: gr.Dropdown
    file: TextFile
    data: gr.Textbox

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components whose values `with_text` takes."""
        return [self.kind, self.file, self.data]


def text_choice(kind: gr.Dropdown, most: int) -> TextChoice:
    """Lay out the fields for each kind, below the row of `kind`. `most` is the limit of a file in
    bytes."""
    file = TextFile(most, visible=False, elem_id="heal-file")
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

    kind.input(show, kind, [file, row], queue=False, **QUIET)
    return TextChoice(kind, file, data)


def kind_of_text(public: bool) -> gr.Dropdown:
    """The list to choose from, in the current row."""
    # On a public page no data set is requested in the owner's name, nor read without limit.
    return gr.Dropdown(
        [SAMPLED, FILE] if public else [SAMPLED, FILE, DATA],
        value=SAMPLED,
        label="Text",
        info="The first needs no data and no network.",
        elem_id="heal-text",
    )


def with_text(
    settings: Settings,
    kind: object,
    file: object,
    data: object,
    deployment: Deployment,
    store: Callable[[str, str], Path],
) -> Settings:
    """The settings with the chosen text. `store` writes a text with an ending to a file; no other
    file is ever used. Raises `SurgeryError`."""
    if kind == SAMPLED:
        return settings
    if kind == FILE:
        given = chosen(file)
        deployment.check_training_text(len(given.text.encode("utf-8", "surrogatepass")))
        return replace(settings, text=str(store(given.text, given.ending)))
    if kind == DATA:
        from surgery.texts import check_name

        if deployment.public:
            raise SurgeryError("Data sets are not read on a public page: bring a file of its text.")
        name = str(data or "").strip()
        if not name:
            raise SurgeryError("Name a data set on the Hub, as org/name or org/name:subset.")
        check_name(name[:_LONGEST].partition(":")[0])
        return replace(settings, data=name[:_LONGEST])
    raise SurgeryError("Choose the text to train on from the list.")
