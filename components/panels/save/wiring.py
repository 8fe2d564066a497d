"""Save the patient as a checkpoint, in a folder of this machine or as a download."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gradio as gr

from components.parts import AT_ONCE, QUIET, PageParts
from components.services import checkpoints
from components.services.client_address import visitor
from components.services.run_job import in_turn, run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.job_buttons import stops
from components.widgets.status.status import note
from surgery.operation import Operation

from . import push_wiring
from .panel import FOLDER, SavePanel

_STOPPED = note("Stopped. Nothing was written.")
Update = tuple[dict, dict, dict, dict]  # of status, download link, snippet and Stop


def wire(panel: SavePanel, parts: PageParts) -> None:
    """Tie the panel to the page."""
    services = parts.services

    def keep(
        session: Session,
        healed: HealedStore,
        name: str,
        dtype: str,
        where: str,
        request: gr.Request,
    ) -> Iterator[Update]:
        downloads, own = services.downloads, request.session_hash or ""
        who = visitor(request)

        def updates() -> Iterator[Update]:
            operation = session.operation(healed)
            yield running(note("Starting"))
            yield from in_turn(services.saving, who, turn(operation), running)

        def turn(operation: Operation) -> Iterator[Update]:
            if not services.deployment.public and where == FOLDER:
                yield from save(services, operation, name, dtype, Path("patients"))
                return
            folder = downloads.folder_of(own, who)
            offer = partial(downloads.offer, own, visitor=who)
            try:
                yield from save(services, operation, name, dtype, folder, offer)
            except GeneratorExit:  # the page was closed, or Stop was pressed
                shutil.rmtree(folder, ignore_errors=True)  # not that of a save that began since
                raise

        yield from run_job(services, "save", request, updates(), ended, stopped=_STOPPED)

    writing = panel.start.click(
        keep,
        [parts.session, parts.healed, panel.name, panel.dtype, panel.where],
        [panel.status, panel.download, panel.snippet, panel.stop],
        **QUIET,
        **AT_ONCE,
    )
    hidden = gr.update(visible=False)
    stops(panel.stop, [writing], lambda: (_STOPPED, hidden), None, [panel.status, panel.stop])
    if panel.push:
        push_wiring.wire(panel.push, parts)


def ended(status: dict) -> Update:
    """The update that shows a status at the end, and leaves link and snippet as they are."""
    return status, gr.skip(), gr.skip(), gr.update(visible=False)


def running(status: dict) -> Update:
    """The update that shows a status and Stop, and neither link nor snippet."""
    return status, {}, gr.update(visible=False), gr.update(visible=True)


def save(
    services: Services,
    operation: Operation,
    name: str,
    dtype: str,
    folder: Path,
    offer: Callable[[Path], str] | None = None,
) -> Iterator[Update]:
    """Updates for status, download link, snippet and Stop. `folder` is where the checkpoint's own
    folder is made; `offer` takes it as one file, and returns its address. Raises `SurgeryError`."""

    def work(progress) -> Path:
        zipped = offer is not None
        return checkpoints.write(services.bases, operation, name, dtype, folder, zipped, progress)

    path = yield from watch(work, running)
    if offer:
        size = path.stat().st_size
        kept = "Available for one hour, while this page is open."
        done = note(f"{path.name} is ready: {size / 1e6:,.1f} MB. {kept}")
        link = {"address": offer(path)}
    else:
        done, link = note(f"Saved to {path}"), {}
    shown = _snippet(path.stem if offer else str(path), services.bases.get(operation).auto_class)
    yield done, link, gr.update(visible=True, value=shown), gr.update(visible=False)


def _snippet(place: str, auto_class: str) -> str:
    return (
        f"from transformers import {auto_class}, AutoTokenizer\n\n"
        f"model = {auto_class}.from_pretrained({place!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({place!r})\n"
    )
