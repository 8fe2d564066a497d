"""The page: its panels put together and wired. What each panel knows stays in the panel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from surgery import SurgeryError

from . import api
from .gradio_compat.blocks import Events
from .panels.base.panel import base_picker, open_for
from .panels.heal import panel
from .panels.lesson import panel as lesson
from .panels.link.panel import Link
from .panels.link.panel import wire as wire_link
from .panels.log import panel as log
from .panels.save import push
from .panels.save.panel import FOLDER, save, save_panel
from .panels.talk.panel import stopped, talk, talk_panel
from .panels.weights import panel as weights
from .panels.xray import compare, suggest
from .panels.xray import panel as xray
from .services import bases, deployment, downloads
from .services.deployment import Deployment
from .services.downloads import Downloads
from .services.guard import Guard
from .services.rates import admit, refused, visitor
from .sessions import cleanup
from .sessions.healed_store import Clinic, Runs
from .sessions.session import Session
from .widgets.help.help import Help
from .widgets.layer_strip.layer_strip import LayerStrip
from .widgets.plotly_view import plotly_view
from .widgets.sample_picker import sample_picker
from .widgets.status.status import failed, note
from .widgets.stop_button import stops
from .widgets.theme import theme
from .widgets.tiles.tiles import Tiles
from .widgets.tiles.tiles import view as tiles_view

HERE = Path(__file__).parent
# Events that compute take turns; those that only draw don't wait for them.
_COMPUTE = {"concurrency_limit": 4, "concurrency_id": "compute"}
_OPEN = {"concurrency_limit": 8, "concurrency_id": "open"}
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def build(first: str = "bundled", allowed: Deployment | None = None) -> gr.Blocks:
    """The app. `first` is the base to open; `allowed` says what its visitors may do, and holds for
    the whole process."""
    public = deployment.use(allowed or deployment.current()).public
    with Events(
        title="Layer Surgery", fill_width=True, analytics_enabled=False, delete_cache=(3600, 7200)
    ) as demo:
        session = gr.State(Session())
        clinic = gr.State(Clinic())
        waiting, runs = Downloads.shared(), Runs()

        with gr.Row(elem_id="top", equal_height=True):
            gr.HTML("<h1>Layer Surgery</h1>", elem_id="title")
            picker = base_picker(first, public)
            teaching = lesson.lesson_panel()
            Help(value={}, elem_id="help")
            sharing = Link(value={}, elem_id="link")
        strip = LayerStrip(elem_id="strip")
        tiles = Tiles(value={}, elem_id="tiles")
        with gr.Tabs(elem_id="panels") as panels:
            with gr.Tab("Talk"):
                talking = talk_panel()
            with gr.Tab(weights.TAB):
                weighing = weights.weights_panel()
            with gr.Tab(xray.TAB):
                with gr.Row(elem_classes="xray-controls fields", equal_height=True):
                    sample = sample_picker()
                with gr.Tabs(elem_id="xray-parts"):
                    with gr.Tab("Where to cut"):
                        seeing = xray.xray_panel()
                    with gr.Tab("What the cut did"):
                        comparing = compare.compare_panel()
                    with gr.Tab("Suggestions"):
                        suggesting = suggest.suggest_panel()
            with gr.Tab("Log"):
                logging = log.log_panel()
            with gr.Tab("Heal", visible=deployment.current().healing):
                healing = panel.heal_panel()
            with gr.Tab("Save"):
                saving = save_panel(public)
                pushing = push.push_panel()

        # ---------------------------------------------------------------- a base

        def choose(wanted: str, session: Session, request: gr.Request) -> Iterator:
            yield from open_for(session, wanted, "", request)

        opened = [picker.status, strip, tiles, picker.stop]
        chosen = [picker.name, session]

        def arrive(wanted: str, session: Session, plan: str, request: gr.Request) -> Iterator:
            yield from open_for(session, wanted, plan, request)

        restored, wanted_plan = wire_link(sharing, strip, picker.name, talking)
        loading = restored.then(arrive, [*chosen, wanted_plan], opened, **_QUIET, **_OPEN)
        opening = gr.on(
            [picker.open.click, picker.name.input],
            choose,
            chosen,
            opened,
            trigger_mode="always_last",
            **_QUIET,
            **_OPEN,
        )
        stops(
            picker.stop,
            [loading, opening],
            lambda: (note("Stopped."), gr.update(visible=False)),
            None,
            [picker.status, picker.stop],
        )

        # ---------------------------------------------------------------- the plan

        def edit(session: Session, event: gr.EventData, request: gr.Request) -> tuple[dict, dict]:
            try:
                admit("edit", request)
            except SurgeryError as error:
                session.refuse(error)
                return session.view(), gr.skip()
            session.apply(event._data)
            return session.view(), _drawn(session)

        edited = strip.edit(
            edit,
            [session],
            [strip, tiles],
            queue=False,
            trigger_mode="multiple",
            **_QUIET,
        )

        # ---------------------------------------------------------------- talk

        def speak(
            session: Session, clinic: Clinic, request: gr.Request, *settings
        ) -> Iterator[tuple[dict, dict]]:
            try:
                admit("speak", request)
                plan = session.plan
            except SurgeryError as error:
                yield failed(error), {}
                return
            healed = clinic.patient(session.spec, plan)
            who = visitor(request)
            yield from talk(session.spec, plan, *settings, healed=healed, who=who)

        heard = [talking.status, talking.output]
        speaking = gr.on(
            [talking.start.click, talking.prompt.submit],
            speak,
            [session, clinic, talking.prompt, *talking.settings],
            heard,
            concurrency_limit=None,  # they take turns by themselves
            **_QUIET,
        )
        stops(talking.stop, [speaking], stopped, talking.output, heard)

        # ---------------------------------------------------------------- the lesson

        beside = lesson.Beside(picker, strip, tiles, talking, saving, weighing.kind)
        taught = lesson.wire(teaching, session, beside, first, _COMPUTE)

        # ---------------------------------------------------------------- weights

        weights.wire(weighing, session, panels, edited, [loading, opening, *taught], _COMPUTE)

        # ---------------------------------------------------------------- evidence and healing

        book = log.LogBook()
        xray.wire(seeing, sample, session, panels, [loading, opening, *taught], _COMPUTE)
        measured = [
            compare.wire(comparing, sample, session, clinic, book, _COMPUTE),
            suggest.wire(suggesting, sample, session, book, _COMPUTE),
            panel.wire(healing, session, clinic, runs, book, _COMPUTE),
        ]

        def tell(session: Session, request: gr.Request) -> tuple[dict, dict]:
            if refused("draw", request):
                return gr.skip(), gr.skip()
            return log.drawn(session)

        for event in [*measured, loading, opening, *taught]:
            event.then(tell, session, [logging.picture, logging.table], queue=False, **_QUIET)

        def apply(session: Session, event: gr.EventData, request: gr.Request) -> tuple[dict, dict]:
            if refused("edit", request):
                return gr.skip(), gr.skip()
            asked = event._data if isinstance(event._data, dict) else {}
            text = asked.get("plan") or log.plan_at(session, asked)
            if text is None:
                gr.Info("That plan is of another base: open it first.")
                return gr.skip(), gr.skip()
            session.become(str(text))
            return session.view(), _drawn(session)

        for view in (suggesting.found, logging.picture, logging.table):
            view.select(apply, session, [strip, tiles], queue=False, **_QUIET)

        # ---------------------------------------------------------------- save

        def keep(
            session: Session, clinic: Clinic, name: str, dtype: str, where: str, request: gr.Request
        ) -> Iterator[tuple[dict, dict, dict]]:
            try:
                admit("save", request)
                plan = session.plan
            except SurgeryError as error:
                yield failed(error), gr.skip(), gr.skip()
                return
            folder, offer, own = Path("patients"), None, request.session_hash
            if public or where != FOLDER:
                who = visitor(request)
                folder = waiting.of(own, who)
                offer = partial(waiting.offer, own, visitor=who)
            healed = clinic.patient(session.spec, plan)
            try:
                yield from save(session.spec, plan, name, dtype, folder, offer, healed)
            except GeneratorExit:  # the page was closed, or Stop was pressed
                if offer:
                    waiting.forget(own)
                raise

        kept = [saving.status, saving.download, saving.snippet]
        writing = saving.start.click(
            keep,
            [session, clinic, saving.name, saving.dtype, saving.where],
            kept,
            concurrency_limit=2,
            **_QUIET,
        )
        stops(
            saving.stop,
            [writing],
            lambda: note("Stopped. Nothing was written."),
            None,
            [saving.status],
        )

        def leave(request: gr.Request) -> None:
            if refused("leave", request):
                return
            cleanup.let_go(demo.state_holder, request.session_hash)
            waiting.forget(request.session_hash)
            runs.forget(request.session_hash)

        push.wire(pushing, session, clinic)
        demo.unload(leave)
        api.publish(_COMPUTE)
    return demo


def _drawn(session: Session) -> dict:
    """The tiles for a session's plan, or why there are none."""
    try:
        return tiles_view(bases.get(session.spec), session.plan)
    except SurgeryError as error:
        return {"error": deployment.current().words(error)}


def launch_options() -> dict:
    """What `Blocks.launch` needs to make it look right, wherever it is launched from."""
    allowed = deployment.current()
    guard = Middleware(
        Guard,
        names=api.NAMES,
        people=allowed.people,
        proxied=allowed.on_space,
        signs_in=push.offered(),
    )
    return {
        "app_kwargs": {
            "middleware": [guard] if allowed.public else [],
            "routes": [plotly_view.ROUTE, downloads.ROUTE],
            "openapi_url": None,  # Gradio has its own description of the API
        },
        "enable_monitoring": False,
        "run_history": False,  # Gradio would record visitors' requests on the Hub
        "mcp_server": find_spec("mcp") is not None,  # the extra gradio[mcp]
        "max_threads": 128,  # those who wait for their turn hold one each
        "theme": theme(),
        "css_paths": sorted(HERE.rglob("*.css"), key=lambda path: path.name),
        "state_session_capacity": cleanup.MOST,
        "footer_links": [],
        "ssr_mode": False,
    }
