"""The save panel: the patient as a checkpoint, in a folder of this machine or as a download.

Knows how a checkpoint is asked for and handed over. Writing is the library's affair, and how a
download waits is next door.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from components.services import bases
from components.services.deployment import current
from components.services.jobs import Job
from components.widgets.download_link.download_link import DownloadLink
from components.widgets.status.status import Status, failed, note
from surgery import Plan, SurgeryError
from surgery.io.archive import zip_folder
from surgery.progress import Cancelled, Progress

if TYPE_CHECKING:
    from surgery.healing import Healed

AS_STORED = "as stored"
DOWNLOAD, FOLDER = "a download (.zip)", "a folder on this machine"


@dataclass(frozen=True)
class SavePanel:
    """The panel's components, for the page to wire."""

    name: gr.Textbox
    dtype: gr.Dropdown
    where: gr.Radio
    start: gr.Button
    stop: gr.Button
    status: Status
    download: DownloadLink
    snippet: gr.Code


def save_panel(public: bool) -> SavePanel:
    """Lay the panel out. Folders of the machine are not offered on a public page."""
    with gr.Row(elem_classes="save-controls", equal_height=True):
        name = gr.Textbox(
            label="Name",
            value="",
            placeholder="my-patient",
            info="Of the folder. Empty: the base's name and the number of layers.",
            max_length=80,
            elem_id="save-name",
        )
        dtype = gr.Dropdown(
            [AS_STORED, "float32", "float16", "bfloat16"],
            value=AS_STORED,
            label="Weights",
            info="As stored keeps every bit that the plan does not change.",
        )
        where = gr.Radio(
            [DOWNLOAD] if public else [DOWNLOAD, FOLDER],
            value=DOWNLOAD,
            label="As",
            info="transformers loads the folder as it is.",
        )
    with gr.Row(elem_classes="save-buttons"):
        start = gr.Button(
            "Save checkpoint", variant="primary", scale=0, min_width=160, size="md", elem_id="save"
        )
        stop = gr.Button("Stop", scale=0, min_width=80, size="md", elem_id="save-stop")
        download = DownloadLink(value={}, elem_id="download")
    status = Status(value={}, elem_id="save-status")
    snippet = gr.Code(
        label="Load it anywhere", language="python", visible=False, interactive=False, lines=4
    )
    return SavePanel(name, dtype, where, start, stop, status, download, snippet)


def save(
    spec: str,
    plan: Plan,
    name: str,
    dtype: str,
    folder: Path,
    offer: Callable[[Path], str] | None = None,
    healed: Healed | None = None,
) -> Iterator[tuple[dict, dict, dict]]:
    """Updates for status, download link and snippet. `folder` is where the checkpoint's own
    folder is made; `offer` takes it as one file, and returns the address to fetch that at."""
    nothing, hidden = {}, gr.update(visible=False)
    try:
        work = partial(write, spec, plan, name, dtype, folder, offer is not None, healed=healed)
        job = Job(lambda progress: work(progress=progress))
        for report in job:
            yield report.view(), nothing, hidden
        path = job.result()
    except Cancelled:
        yield note("Stopped. Nothing was written."), nothing, hidden
        return
    except SurgeryError as error:
        yield failed(error), nothing, hidden
        return
    if offer:
        size = path.stat().st_size
        done = note(f"{path.name} is ready: {size / 1e6:,.1f} MB. It waits for an hour.")
        link = {"address": offer(path)}
    else:
        done, link = note(f"Saved to {path}"), nothing
    shown = _snippet(path.stem if offer else str(path), bases.get(spec).auto_class)
    yield done, link, gr.update(visible=True, value=shown)


def write(
    spec: str,
    plan: Plan,
    name: str,
    dtype: str,
    folder: Path,
    zipped: bool,
    progress: Progress,
    healed: Healed | None = None,
) -> Path:
    """The checkpoint in a folder of its own in `folder`, or as one file. Raises `SurgeryError`,
    also for more than the deployment allows."""
    base = bases.get(spec, progress)
    from surgery.checkpoint.save import saved_bytes

    current().check_plan(len(plan))
    wanted = None if dtype == AS_STORED else dtype
    size = saved_bytes(base, plan, wanted)
    current().check_size(size, "This patient's weights")
    called = file_name(name) or f"{file_name(base.name)}-{len(plan)}-layers"
    try:
        with bases.in_use(base):
            if base.kind == "config":
                bases.load(spec, progress)  # saved from memory
            elif not plan.dropped:
                bases.fetch(base, progress)  # else the save downloads only what it needs
            # The folder and the zip file.
            with bases.disk_room((2 if zipped else 1) * size, folder):
                save_to = healed.save if healed else partial(base.save, plan)
                out = save_to(folder / called, dtype=wanted, progress=progress)
                if zipped:
                    out = zip_folder(out, folder / f"{called}.zip", progress)
                    progress("Ready", 1, 1)  # raises if the page was closed
                return out
    except BaseException:
        if zipped:  # the folder is used for this file only
            shutil.rmtree(folder, ignore_errors=True)
        raise


def file_name(text: str) -> str:
    """A name that is safe on every disk, from whatever was typed."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(text or "").rpartition("/")[2]).strip("-.")[:80]


def _snippet(place: str, auto_class: str) -> str:
    return (
        f"from transformers import {auto_class}, AutoTokenizer\n\n"
        f"model = {auto_class}.from_pretrained({place!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({place!r})\n"
    )
