"""Put the page together from its panels, and say how to launch it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from surgery import SurgeryError

from . import importance, page_values, pasted_recipe
from .api import NAMES, Endpoints
from .gradio_compat import lighter_scripts
from .gradio_compat.event_data import event_data
from .gradio_compat.readable_errors import ReadableErrors
from .panels import base, heal, lesson, link, log, quality, save, talk, weights, xray
from .panels.save import push_offered
from .parts import QUIET, PageParts, sizes_of, strip_of, tiles_of
from .services import session_cleanup
from .services.guard import Guard
from .services.services import Services
from .sessions.healed_store import HealedStore
from .sessions.session import Session
from .widgets.help.help import Help
from .widgets.layer_strip.layer_strip import LayerStrip
from .widgets.plotly_view import plotly_view
from .widgets.theme import theme
from .widgets.tiles.tiles import Tiles

HERE = Path(__file__).parent
# Off the first panel the strip is low, so that the panel has the screen: see compact.css.
_COMPACT = "() => {{ document.getElementById('top').toggleAttribute('data-compact', {}); }}"


def build(first: str = "bundled", services: Services | None = None) -> gr.Blocks:
    """The app. `first` is the base to open; `services` are the owner's own unless given."""
    services = services or Services.of()
    allowed = services.deployment
    with ReadableErrors(
        public=allowed.public,
        title="Layer Surgery",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(3600, 7200),
    ) as demo:
        session = gr.State(Session(allowed))
        healed = gr.State(HealedStore())
        with gr.Row(elem_id="top", equal_height=True):
            gr.HTML("<h1>Layer Surgery</h1>", elem_id="title")
            picking = base.layout(services, first)
            teaching = lesson.layout()
            Help(value={}, elem_id="help")
            sharing = link.layout()
        strip = LayerStrip(value=base.opening(first), elem_id="strip")
        with gr.Row(elem_id="numbers"):
            quality_tile = quality.layout()
            tiles = Tiles(value={}, elem_id="tiles")
        with gr.Tabs(elem_id="panels") as tabs:
            with gr.Tab("Talk"):
                talking = talk.layout(services)
            with gr.Tab(weights.TAB):
                weighing = weights.layout()
            with gr.Tab(xray.TAB, id=xray.TAB):
                seeing = xray.layout(services)
            with gr.Tab("Log"):
                logging = log.layout()
            with gr.Tab("Heal", visible=allowed.healing):
                healing = heal.layout(services)
            with gr.Tab("Save"):
                saving = save.layout(services)

        for place, tab in enumerate(tabs.children):
            tab.select(None, js=_COMPACT.format("true" if place else "false"), **QUIET)

        def edit(
            session: Session, healed: HealedStore, event: gr.EventData, request: gr.Request
        ) -> tuple[dict, dict]:
            try:
                services.admit("edit", request)
            except SurgeryError as error:
                session.refuse(error)
                return strip_of(session), gr.skip()
            session.apply(event_data(event))
            # The preset menu may have tried plans out.
            view = {**strip_of(session), "sizes": sizes_of(services, session)}
            return view, tiles_of(services, session, healed)

        edited = strip.edit(
            edit, [session, healed], [strip, tiles], queue=False, trigger_mode="multiple", **QUIET
        )
        parts = PageParts(services, session, healed, strip, tiles, tabs, [edited])
        # Edits too, which the panels follow.
        pasted_recipe.wire(parts)
        asked = quality.wire_repair(quality_tile, parts)
        prompt, settings = talking.prompt, talking.settings
        restored, plan = link.wire(sharing, parts, demo, picking.name, prompt, settings)
        base.wire(picking, parts, restored, plan)
        page_values.wire(strip, prompt, (*settings, talking.image))
        fields: tuple[Any, ...] = settings
        greedy, chat, tokens, seed, *_ = fields
        beside = lesson.Beside(
            picking.name,
            picking.status,
            prompt,
            greedy,
            chat,
            tokens,
            seed,
            weighing.kind,
            base.describe,
            weights.choices,
        )
        lesson.wire(teaching, parts, beside, first)
        talk.wire(talking, parts)
        weights.wire(weighing, parts)
        xray.wire(seeing, parts)
        heal.wire(healing, parts)
        log.wire(logging, parts)
        save.wire(saving, parts)
        importance.wire(parts)
        quality.wire(quality_tile, parts, asked)

        def leave(request: gr.Request) -> None:
            if services.refused("leave", request):
                return
            own = request.session_hash or ""
            services.cleanup.release(demo.state_holder, own)
            services.downloads.forget(own)
            services.runs.forget(own)
            services.quality.leave(own)

        demo.unload(leave)
        Endpoints(services).publish()
    return demo


def launch_options(services: Services) -> dict:
    """The arguments of `Blocks.launch` for the page that was built with these services."""
    allowed = services.deployment
    guard = Middleware(
        Guard,
        names=NAMES,
        people=allowed.people,
        proxied=allowed.on_space,
        signs_in=push_offered(allowed),
    )
    return {
        "app_kwargs": {
            "middleware": [guard] if allowed.public else [],
            "routes": [plotly_view.ROUTE, services.downloads.route(), *lighter_scripts.routes()],
            "openapi_url": None,  # Gradio has its own description of the API
        },
        "enable_monitoring": False,
        "run_history": False,  # Gradio would record visitors' requests on the Hub
        "mcp_server": find_spec("mcp") is not None,  # the extra gradio[mcp]
        "max_threads": 128,  # those who wait for their turn hold one each
        "theme": theme(),
        "css_paths": sorted(HERE.rglob("*.css"), key=lambda path: path.name),
        "state_session_capacity": session_cleanup.MOST,
        "footer_links": [],
        "ssr_mode": False,
    }
