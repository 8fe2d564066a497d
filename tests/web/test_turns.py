"""Work that has to wait says its place in the queue, and whoever leaves gives the place back."""

import time
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.context import Context

from components.panels import base, heal, log, save, weights
from components.panels.base.wiring import open_for
from components.panels.heal.text_choice import MIXED
from components.panels.heal.wiring import heal as run_heal
from components.panels.log.wiring import measure
from components.panels.save.panel import DOWNLOAD
from components.panels.weights.look import Look
from components.panels.weights.wiring import Updates
from components.panels.xray import compare, scan, suggest
from components.panels.xray.compare import Seen
from components.panels.xray.scan import Fields
from components.parts import PageParts
from components.services.checkpoints import AS_STORED
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.layer_strip.layer_strip import LayerStrip
from components.widgets.tiles.tiles import Tiles
from surgery.weight_stats import cache

HEAL = ("layers next to seams", "distillation from the base", 6, 5, 2, 16, 3e-3, 4, 0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    cache._surveys.clear()


@pytest.fixture
def session(bases, tiny_folder):
    session = Session()
    spec = str(tiny_folder("llama"))
    session.open(spec, bases.get(spec))
    session.become("0:2, 4:6")
    return session


def scanning(services, session):
    panel = scan.layout()
    return panel, scan.measure(panel, services, session, Fields("facts", "", [], "", 0.0))


def comparing(services, session):
    panel = compare.layout()
    return panel, compare.run(panel, services, session, HealedStore(), Seen(), "facts", "")


def suggesting(services, session):
    panel = suggest.layout()
    return panel, suggest.run(panel, services, session, 4, "layers", "facts", "")


def logging(services, session):
    panel = log.layout()
    return panel, measure(panel, services, session, HealedStore())


def counting(services, session):
    panel, look = weights.layout(), Look()
    look.open = True
    return panel, Updates(panel, services).count(session, look)


def healing(services, session):
    panel = heal.layout(services)
    text = (MIXED, None, None)
    return panel, run_heal(panel, services, session, HealedStore(), "one", HEAL, text)


def saving(services, session):
    """Its event, whose updates are in the order of its outputs."""
    own, healed = gr.State(session), gr.State(HealedStore())
    strip, tiles = LayerStrip(), Tiles()
    panel = save.layout(services)
    save.wire(panel, PageParts(services, own, healed, strip, tiles, gr.Tabs(), []))
    (event,) = (fn for fn in Context.root_block.fns.values() if fn.api_name == "keep")
    request = SimpleNamespace(session_hash="one", client=None)
    updates = event.fn(session, HealedStore(), "", AS_STORED, DOWNLOAD, request)
    return panel, (
        update if isinstance(update, dict) else {panel.status: update[0], panel.stop: update[3]}
        for update in updates
    )


def opening(services, session):
    """Its updates are in the order of its outputs."""
    panel = base.layout(services, "bundled")
    updates = open_for(services, Session(), HealedStore(), session.spec, "", None)
    return panel, ({panel.status: status, panel.stop: stop} for status, _, _, stop in updates)


@pytest.mark.parametrize(
    ("turns", "begin"),
    [
        *(("measuring", work) for work in (scanning, comparing, suggesting, logging, counting)),
        ("healing", healing),
        ("saving", saving),
        ("opening", opening),
    ],
)
def test_it_says_its_place_and_gives_it_back(services, session, turns, begin):
    queue = getattr(services, turns)
    held = [queue.queued(f"{i}", iter(range(100)), lambda place: place) for i in range(queue.free)]
    for one in held:
        next(one)
    with gr.Blocks():
        panel, updates = begin(services, session)
    said = next(u for u in updates if "queue" in u.get(panel.status, {}).get("text", ""))
    assert said[panel.status]["text"].endswith("Place 1 in the queue")
    if turns != "healing":  # its button is always there
        assert said[panel.stop]["visible"]
    updates.close()
    assert not len(queue)
    for one in held:
        one.close()
    end = time.monotonic() + 10
    while queue.sessions:
        assert time.monotonic() < end, "a turn was not given back"
        time.sleep(0.01)
    assert not list(services.downloads.folder.iterdir())


def test_no_work_waits_in_gradio_s_queue_where_nothing_is_said(own_page):
    """Only endpoints of other programs have a limit there. Leaving a page is no event of the queue,
    whatever it looks like."""
    queued = [fn for fn in own_page.fns.values() if fn.fn and fn.queue and fn.concurrency_limit]
    names = {fn.api_name for fn in queued if fn.api_visibility != "public"}
    assert names == {"leave"}
