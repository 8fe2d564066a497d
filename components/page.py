"""The page: its panels put together and wired. What each panel knows stays in the panel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from surgery import SurgeryError

from . import bases
from .base_picker import about, base_picker, open_base
from .header import Header
from .layer_strip import LayerStrip
from .live import HERE
from .save import FOLDER, Downloads, save, save_panel
from .session import Session
from .status import note
from .talk import stopped, talk, talk_panel
from .theme import theme
from .tiles import Tiles
from .tiles import view as tiles_view

# Events that compute take turns; those that only draw don't wait for them.
_COMPUTE = {"concurrency_limit": 4, "concurrency_id": "compute"}
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def build(first: str = "bundled", public: bool = False) -> gr.Blocks:
    """The app. `first` is the base to open; a `public` page offers nothing of the machine's own
    files."""
    with gr.Blocks(
        title="Layer Surgery", fill_width=True, analytics_enabled=False, delete_cache=(3600, 7200)
    ) as demo:
        session = gr.State(Session())
        spec = gr.State(first)
        downloads = Downloads()

        Header(value={}, elem_id="header")
        picker = base_picker(first, public)
        strip = LayerStrip(elem_id="strip")
        tiles = Tiles(value={}, elem_id="tiles")
        with gr.Tabs(elem_id="panels"):
            with gr.Tab("Talk"):
                talking = talk_panel()
            with gr.Tab("Save"):
                saving = save_panel(public)

        # ---------------------------------------------------------------- a base

        def choose(
            wanted: str, session: Session, spec: str
        ) -> Iterator[tuple[dict, object, object, str, dict]]:
            wanted = str(wanted or "").strip()
            same = (gr.skip(), gr.skip(), spec)
            for item in open_base(wanted, public):
                if isinstance(item, dict):
                    yield item, *same, gr.update(visible=not item["failed"])
                    continue
                session.open(item.name, item.depth, item.kinds)
                drawn = tiles_view(item, session.plan)
                yield about(item), session.view(), drawn, wanted, gr.update(visible=False)

        opened = [picker.status, strip, tiles, spec, picker.stop]
        chosen = [picker.name, session, spec]
        loading = demo.load(choose, chosen, opened, **_QUIET, **_COMPUTE)
        opening = gr.on(
            [picker.open.click, picker.name.input],
            choose,
            chosen,
            opened,
            trigger_mode="always_last",
            **_QUIET,
            **_COMPUTE,
        )
        picker.stop.click(
            lambda: (note("Stopped."), gr.update(visible=False)),
            None,
            [picker.status, picker.stop],
            cancels=[loading, opening],
            queue=False,
            **_QUIET,
        )

        # ---------------------------------------------------------------- the plan

        def edit(session: Session, spec: str, event: gr.EventData) -> tuple[dict, dict]:
            session.apply(event._data)
            try:
                drawn = tiles_view(bases.get(spec), session.plan)
            except SurgeryError as error:
                drawn = {"error": str(error)}
            return session.view(), drawn

        strip.edit(
            edit,
            [session, spec],
            [strip, tiles],
            queue=False,
            trigger_mode="multiple",
            **_QUIET,
        )

        # ---------------------------------------------------------------- talk

        def speak(session: Session, spec: str, *settings) -> Iterator[tuple[dict, dict]]:
            yield from talk(spec, session.plan, *settings)

        heard = [talking.status, talking.output]
        speaking = gr.on(
            [talking.start.click, talking.prompt.submit],
            speak,
            [session, spec, talking.prompt, *talking.settings],
            heard,
            **_QUIET,
            **_COMPUTE,
        )
        talking.stop.click(
            stopped, talking.output, heard, cancels=[speaking], queue=False, **_QUIET
        )

        # ---------------------------------------------------------------- save

        def keep(
            session: Session, spec: str, name: str, dtype: str, where: str, request: gr.Request
        ) -> Iterator[tuple[dict, dict, dict]]:
            zipped = public or where != FOLDER
            folder = downloads.of(request.session_hash) if zipped else Path("patients")
            yield from save(spec, session.plan, name, dtype, folder, zipped)

        kept = [saving.status, saving.download, saving.snippet]
        writing = saving.start.click(
            keep,
            [session, spec, saving.name, saving.dtype, saving.where],
            kept,
            concurrency_limit=2,
            **_QUIET,
        )
        saving.stop.click(
            lambda: note("Stopped. Nothing was written."),
            None,
            saving.status,
            cancels=[writing],
            queue=False,
            **_QUIET,
        )
        demo.unload(lambda request: downloads.forget(request.session_hash))
    return demo


def launch_options() -> dict:
    """What `Blocks.launch` needs to make it look right, wherever it is launched from."""
    return {
        "theme": theme(),
        "css_paths": sorted(HERE.glob("*.css")),
        "footer_links": [],
        "ssr_mode": False,
    }
