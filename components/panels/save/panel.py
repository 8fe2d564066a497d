"""Lay out the Save panel: name, data type and destination of the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.services.checkpoints import AS_STORED
from components.services.services import Services
from components.widgets.download_link.download_link import DownloadLink
from components.widgets.status.status import Status

from .push import PushPanel
from .push import layout as push_layout

DOWNLOAD, FOLDER = "a download (.zip)", "a folder on this machine"


@dataclass(frozen=True)
class SavePanel:
    """The panel's components."""

    name: gr.Textbox
    dtype: gr.Dropdown
    where: gr.Radio
    start: gr.Button
    stop: gr.Button
    status: Status
    download: DownloadLink
    snippet: gr.Code
    push: PushPanel | None


def layout(services: Services) -> SavePanel:
    """Lay the panel out in the current tab. A public page offers no folders of the machine."""
    public = services.deployment.public
    with gr.Row(elem_classes="save-controls", equal_height=True):
        name = gr.Textbox(
            label="Name",
            value="",
            placeholder="my-patient",
            info="Folder name. Defaults to the base and its number of layers.",
            max_length=80,
            elem_id="save-name",
        )
        dtype = gr.Dropdown(
            [AS_STORED, "float32", "float16", "bfloat16"],
            value=AS_STORED,
            label="Data type",
            info="“As stored” keeps unchanged weights bit for bit.",
        )
        where = gr.Radio(
            [DOWNLOAD] if public else [DOWNLOAD, FOLDER],
            value=DOWNLOAD,
            label="Save as",
            info="Unpack a download before you load it.",
        )
    with gr.Row(elem_classes="save-buttons"):
        start = gr.Button(
            "Save checkpoint", variant="primary", scale=0, min_width=160, size="md", elem_id="save"
        )
        stop = gr.Button(
            "Stop", scale=0, min_width=80, size="md", visible=False, elem_id="save-stop"
        )
        download = DownloadLink(value={}, elem_id="download")
        status = Status(value={}, elem_id="save-status")
    snippet = gr.Code(
        label="Load it anywhere", language="python", visible=False, interactive=False, lines=4
    )
    push = push_layout(services.deployment)
    return SavePanel(name, dtype, where, start, stop, status, download, snippet, push)
