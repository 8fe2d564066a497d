"""The real public page: every route is listed or closed, every event is rate-limited."""

import asyncio
import http.client
import inspect
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import gradio as gr
import pytest
from gradio.state_holder import SessionState
from starlette.routing import Mount

from components import api
from components.page import build, launch_options
from components.panels import weights, xray
from components.panels.heal.wiring import Costs
from components.panels.weights.look import Look
from components.panels.xray.compare import Compared, Seen
from components.services import jobs
from components.services.deployment import Deployment
from components.services.guard import Guard
from components.services.rates import PER_MINUTE, Rates
from components.services.services import Services
from components.sessions.session import Session
from surgery import Base, Plan
from surgery.operation import Operation

# The routes that the page and API clients use. All others are closed.
OPEN = {
    "GET": {
        *("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/robots.txt"),
        *("/manifest.json", "/pwa_icon", "/pwa_icon/{size}", "/assets/{path:path}"),
        *("/static/{path:path}", "/plotly.min.js", "/downloads/{secret}/{name}"),
        *("/gradio_api/info", "/gradio_api/info/", "/gradio_api/openapi.json"),
        *("/gradio_api/startup-events", "/gradio_api/theme.css", "/gradio_api/app_id"),
        *("/gradio_api/app_id/", "/gradio_api/queue/data", "/gradio_api/queue/status"),
        *("/gradio_api/heartbeat/{session_hash}", "/gradio_api/call/{api_name}/{event_id}"),
        *("/gradio_api/mcp", "/gradio_api/mcp/schema"),
    },
    "POST": {
        *("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/mcp"),
        *("/gradio_api/reset", "/gradio_api/reset/"),
        *(
            f"/gradio_api/{way}/{{api_name}}{end}"
            for way in ("run", "api", "call")
            for end in ("", "/")
        ),
    },
    "DELETE": {"/gradio_api/mcp"},
}
FILLED = {
    "{size}": "192",
    "{path:path}": "x.js",
    "{path_or_url:path}": "etc/passwd",
    "{url_path:path}": "http://127.0.0.1/",
    "{api_name}": "inspect",
}


@pytest.fixture(scope="module")
def page():
    """The public app, served from this process."""
    services = Services.of(Deployment.of(public=True, healing=True))
    demo = build("bundled", services)
    demo.queue(max_size=128)
    app, url, _ = demo.launch(
        prevent_thread_lock=True, quiet=True, inbrowser=False, **launch_options(services)
    )
    yield SimpleNamespace(demo=demo, app=app, url=url)
    demo.close()


def ask(page, method: str, path: str) -> tuple[int, str]:
    """Status and text of a request whose path is sent unchanged."""
    connection = http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body or None)
    answer = connection.getresponse()
    # Streams don't end, so only their status is read.
    message = "" if answer.status == 200 else answer.read(10_000).decode("utf-8", "replace")
    connection.close()
    return answer.status, message


def routes(result, before: str = ""):
    """(path, methods) of an app's routes, mounted and included ones among them."""
    for route in result:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes(inner.routes, before)
            continue
        path = before + route.path
        if isinstance(route, Mount):
            yield path, {"GET", "POST", "DELETE", "PUT"}
            yield from routes(route.routes or (), path)
        else:
            yield path, set(route.methods)


def fill(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    while "{" in path:
        start = path.index("{")
        path = path[:start] + "x1" + path[path.index("}") + 1 :]
    return path


def test_every_route_is_on_the_list_or_closed(page):
    guard = Guard(None, names=api.NAMES)
    result = list(routes(page.app.routes))
    assert len(result) > 60
    seen = {method: set() for method in OPEN}
    for path, methods in result:
        for method in methods | {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"}:
            allowed = OPEN.get("GET" if method == "HEAD" else method, set())
            asset = path.startswith("/assets/") and "/assets/{path:path}" in allowed
            listed = path in allowed or asset
            if path in allowed:
                seen["GET" if method == "HEAD" else method].add(path)
            assert guard.opens(method, fill(path)) == listed, (method, path)
            if not listed:
                status, message = ask(page, method, fill(path))
                assert status in (403, 405), (method, path, status, message)
    assert seen == OPEN  # every listed route exists


@pytest.mark.parametrize(
    "path",
    [
        *("//monitoring", "/monitoring/", "/%6donitoring", "/./monitoring", "/x/../monitoring"),
        *("/assets/../monitoring", "/assets/%2e%2e/monitoring", "//openapi.json"),
        *("/gradio_api//runs", "/gradio_api/runs/", "/gradio_api/dev/reload/", "/queue/join"),
        *("/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1:1/"),
        *("/gradio_api/file=file:///etc/passwd", "/gradio_api/proxy=http://169.254.169.254/"),
        *("/?deep_link=x", "/config?deep_link=..", "/gradio_api/deep_link?session_hash=x"),
    ],
)
def test_no_way_of_writing_it_opens_what_is_closed(page, path):
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "TRACE"):
        assert ask(page, method, path)[0] in (400, 403, 404, 405), (method, path)


# ---------------------------------------------------------------- events are counted

# Event data sent with every event, used or not.
EVENT = {
    "op": "write",
    "text": "0:5",
    "plan": "0:5",
    "index": 0,
    "step": 2,
    "address": "http://x",
}


def call(page, fn, state, event) -> None:
    """The first steps of an event, with the initial values of its components."""
    values = [None if block.stateful else getattr(block, "value", None) for block in fn.inputs]
    if fn.api_name in api.NAMES:
        given = {"base": "bundled", "plan": "0:3", "prompt": "hello"}
        taken = list(inspect.signature(fn.fn).parameters.values())[: len(values)]
        values = [given.get(one.name, one.default) for one in taken]
    request = gr.Request(
        session_hash="s", client=SimpleNamespace(host="10.0.0.1"), headers={}, query_params={}
    )

    async def go():
        iterator = None
        for _ in range(4):
            done = await page.demo.process_api(
                fn, values, state=state, request=request, iterator=iterator, event_data=event,
                event_id="e", session_hash="s",
            )  # fmt: skip
            iterator = done.get("iterator")
            if iterator is None:
                return
        await iterator.aclose()

    with ThreadPoolExecutor(1) as pool:  # this thread may have a loop already, of a browser
        pool.submit(asyncio.run, go()).result()


@pytest.fixture
def base(tiny_folder) -> Base:
    """What the page gets for each base."""
    base = Base.open(str(tiny_folder("llama")))
    base.load()
    return base


def prepared(page, base) -> SessionState:
    """A session in which every event has something to do."""
    state = SessionState(page.demo)
    for block in page.demo.blocks.values():
        if not block.stateful:
            continue
        value = state[block._id]
        if isinstance(value, Session):
            value.open("bundled", base)
            value.become("0:2, 4:6")
        elif isinstance(value, (Look, Costs)):
            value.open = True
        elif isinstance(value, Seen):
            result = SimpleNamespace(tokens=[SimpleNamespace(window=0)] * 3)
            whole = Operation("bundled", Plan.whole(base.depth))
            value.of = Compared(whole, None, result, "prose")
    return state


def reach(base, monkeypatch, allowance) -> dict[str, set[str]]:
    """The names of events that reach a base or start work, with this allowance."""
    public = Deployment.of(public=True, healing=True)
    services = Services.of(public, rates=Rates(allowance))
    page = SimpleNamespace(demo=build("bundled", services))
    reached: dict[str, set[str]] = {}
    name = ""

    def notes(what, work):
        def noted(*args, **kwargs):
            reached.setdefault(name, set()).add(what)
            return work(*args, **kwargs)

        return noted

    monkeypatch.setattr(services.bases, "get", notes("get", lambda *_: base))
    monkeypatch.setattr(services.bases, "load", notes("load", lambda *_: base))
    monkeypatch.setattr(jobs.Job, "__iter__", notes("job", lambda self: iter(())))
    for fn in page.demo.fns.values():
        if fn.fn is None:
            continue
        name = f"{fn._id} {fn.api_name}"
        value = weights.TAB if fn.targets and fn._id == first_turned(page) else xray.TAB
        event = gr.EventData(None, {**EVENT, "value": value, "index": 0, "selected": True})
        try:
            call(page, fn, prepared(page, base), event)
        except Exception as error:  # the stubs are incomplete; only what was reached counts
            reached.setdefault("failed", set()).add(f"{name}: {type(error).__name__}")
    return reached


def first_turned(page) -> int:
    return next(fn._id for fn in page.demo.fns.values() if fn.api_name == "turned")


def test_healing_that_is_allowed_has_a_panel(page):
    (tab,) = (x for x in page.demo.blocks.values() if getattr(x, "label", "") == "Heal")
    assert isinstance(tab, gr.Tab) and tab.visible


def test_what_stop_says_comes_behind_the_last_report(page):
    """A browser runs a button's events in order: what is said before the cancelling, a last report
    covers."""
    of_button = {}
    for fn in page.demo.fns.values():
        for target in fn.targets:
            of_button.setdefault(target, []).append(fn)
    spoken = 0
    for events in of_button.values():
        cancelling = [i for i, fn in enumerate(events) if fn.is_cancel_function]
        telling = [i for i, fn in enumerate(events) if fn.outputs]
        if cancelling and telling:
            assert max(cancelling) < min(telling)
            assert all(events[i].queue for i in telling)
            spoken += 1
    assert spoken > 5


def test_no_event_computes_once_its_allowance_is_used_up(base, monkeypatch):
    """A new event without `admit` would open a base or start a job here."""
    free = reach(base, monkeypatch, dict.fromkeys(PER_MINUTE, 10**6))
    computing = {name.partition(" ")[2].rstrip("_0123456789") for name in free} - {"failed", ""}
    assert computing >= {
        *("arrive", "choose", "edit", "speak", "act", "again", "turned", "began", "chosen"),
        *("picked", "followed", "begin", "pick", "estimate", "train", "apply", "keep"),
        *api.NAMES,
    }, free.get("failed")
    spent = reach(base, monkeypatch, dict.fromkeys(PER_MINUTE, 1e-09))
    spent.pop("failed", None)
    assert not spent
