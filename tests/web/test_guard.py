"""Which requests reach the app of a public page."""

from datetime import datetime, timedelta
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.middleware import Middleware

from components.gradio_compat.readable_errors import ReadableErrors
from components.services.address_limits import Shares
from components.services.guard import MAX_BODY, Guard
from surgery import SurgeryError


@pytest.fixture(scope="module")
def client():
    app = FastAPI(middleware=[Middleware(Guard, names=["preview", "save"], people=1)])

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def anything(request: Request):
        if "boom" in request.query_params:
            raise KeyError("a secret")
        message = request.headers.get("x-forwarded-for")
        return {"size": len(await request.body()), "from": request.client.host, "said": message}

    return TestClient(app, client=("203.0.113.9", 1234))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("POST", "/upload"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit/"),
        ("POST", "/gradio_api/queue/join/../../upload"),
        ("POST", "/login"),
        ("POST", "/gradio_api/call/choose"),
        ("POST", "/gradio_api/run/edit"),
        ("POST", "/gradio_api/call/v2/preview"),
        ("PUT", "/gradio_api/queue/join"),
        ("PATCH", "/gradio_api/queue/join"),
        ("DELETE", "/gradio_api/queue/join"),
        ("DELETE", "/"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/"),
        ("GET", "/%6donitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/assets/../monitoring"),
        ("GET", "/assets/%2e%2e/monitoring"),
        ("GET", "/static/%5c..%5cx"),
        ("GET", "/openapi.json"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/dev/reload"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/mcp/sse"),
        ("GET", "/gradio_api/deep_link?session_hash=x"),
        ("GET", "/?deep_link=x"),
        ("HEAD", "/monitoring"),
        ("OPTIONS", "/monitoring"),
        ("GET", "/MONITORING"),
    ],
)
def test_what_the_page_has_no_use_for_is_refused(client, method, path):
    assert client.request(method, path, content=b"{}").status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?base=bundled",
        "/config",
        "/assets/index-Ab_c.1.js",
        "/static/img/logo.svg",
        "/downloads/aB_-9/a%20b.zip",
        "/gradio_api/info?all_endpoints=True",
        "/gradio_api/call/save/0a1b",
        "/gradio_api/heartbeat/abc",
    ],
)
def test_what_it_needs_can_be_read(client, path):
    assert client.get(path).status_code == 200


def padded(size: int) -> bytes:
    return b'{"data":["' + b"x" * (size - 13) + b'"]}'


@pytest.mark.parametrize(
    "path", ["/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/call/save"]
)
def test_what_it_needs_passes_up_to_a_size(client, path):
    answer = client.post(path, content=padded(MAX_BODY))
    assert answer.json()["size"] == MAX_BODY
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert client.post(path, content=padded(MAX_BODY + 1)).status_code == 413


def test_a_length_that_is_not_claimed_helps_nobody(client):
    def endless():
        for _ in range(40):
            yield b"x" * 100_000

    assert client.post("/gradio_api/queue/join", content=endless()).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"data":[NaN]}',
        b'{"data":[1e999]}',
        b'{"data":["\\ud800"]}',
        b'{"data":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"data":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"data":[],"session_hash":7}',
        b'{"data":[],"session_hash":""}',
        b'{"data":[],"session_hash":"' + b"s" * 65 + b'"}',
        b'{"data":[],"session_hash":"../x"}',
    ],
)
def test_a_body_that_gradio_would_choke_on_is_answered_with_a_sentence(client, body):
    answer = client.post("/gradio_api/queue/join", content=body)
    assert answer.status_code == 400 and answer.json()["detail"].endswith(".")


def test_what_fails_in_gradios_routes_is_a_sentence_too(client, capfd):
    answer = client.post("/gradio_api/queue/join?boom=1", content=b"{}")
    assert answer.status_code == 400 and "secret" not in answer.text
    message = capfd.readouterr().err
    assert "KeyError" in message and "Traceback" not in message


def test_an_address_can_not_be_made_up(client):
    answer = client.get("/", headers={"x-forwarded-for": "8.8.8.8"}).json()
    assert (answer["from"], answer["said"]) == ("203.0.113.9", "203.0.113.9")


def test_below_a_path_the_same_is_closed():
    inner = FastAPI(middleware=[Middleware(Guard, names=["preview"])])

    @inner.get("/{path:path}")
    def anything():
        return "here"

    outer = FastAPI()
    outer.mount("/surgery", inner)
    client = TestClient(outer)
    assert client.get("/surgery/config").status_code == 200
    assert client.get("/surgery/").status_code == 200
    for path in ("monitoring", "/monitoring", "openapi.json", "surgery/monitoring", "../x"):
        assert client.get(f"/surgery/{path}").status_code in (403, 404), path


def holder(**sessions) -> SimpleNamespace:
    return SimpleNamespace(session_data=dict(sessions), time_last_used={})


def session(closed: bool = False) -> SimpleNamespace:
    return SimpleNamespace(is_closed=closed, state_data={1: "a plan"})


def test_an_address_opens_so_many_sessions_and_takes_no_others_place():
    shares, kept = Shares(people=2), holder(other=session())
    shares.session(kept, "10.0.0.2", "other")
    for i in range(10):
        shares.session(kept, "10.0.0.1", f"s{i}")
        kept.session_data[f"s{i}"] = session()
    with pytest.raises(SurgeryError, match="Too many pages"):
        shares.session(kept, "10.0.0.1", "s10")
    shares.session(kept, "10.0.0.1", "s3")  # an existing one
    kept.session_data["s4"].is_closed = True
    shares.session(kept, "10.0.0.1", "s10")
    assert "s4" not in kept.session_data and "other" in kept.session_data


@pytest.mark.parametrize("name", ["new", None])
def test_sessions_without_a_value_do_not_stay(name):
    kept = holder(call=SimpleNamespace(is_closed=False, state_data={}), page=session())
    kept.time_last_used = {
        name: datetime.now() - timedelta(seconds=60) for name in kept.session_data
    }
    Shares(people=2).session(kept, "10.0.0.1", name)
    assert set(kept.session_data) == set(kept.time_last_used) == {"page"}


def event(address: str, session: str) -> SimpleNamespace:
    sender = SimpleNamespace(client=SimpleNamespace(host=address))
    return SimpleNamespace(request=sender, session_hash=session)


def test_places_in_the_queue_are_shared_by_address_and_by_session():
    shares = Shares(people=20)
    waiting = [event("10.0.0.1", f"s{i}") for i in range(40)]
    waiting += [event("10.0.0.2", "greedy") for _ in range(23)]
    queue = SimpleNamespace(
        event_queue_per_concurrency_id={"compute": SimpleNamespace(queue=waiting)},
        active_jobs=[None, [event("10.0.0.2", "greedy")]],
    )
    with pytest.raises(SurgeryError, match="your network address"):
        shares.place(queue, "10.0.0.1", "another")
    with pytest.raises(SurgeryError, match="your requests"):
        shares.place(queue, "10.0.0.2", "greedy")
    shares.place(queue, "10.0.0.2", "modest")
    shares.place(queue, "10.0.0.3", "greedy")


def test_an_address_has_so_many_requests_answered_at_once():
    shares = Shares(people=1)
    entered = [shares.request("10.0.0.1") for _ in range(8)]
    for one in entered:
        one.__enter__()
    with pytest.raises(SurgeryError, match="Too many open connections"), shares.request("10.0.0.1"):
        pass
    with shares.request("10.0.0.2"):
        pass
    entered.pop().__exit__(None, None, None)
    with shares.request("10.0.0.1"):
        pass


@pytest.fixture(scope="module")
def blocks():
    """The URL of a public app with two endpoints."""

    def add(a: int, b: int) -> int:
        return a + b

    def fail(a: int) -> int:
        raise KeyError(a)

    with ReadableErrors(public=True, analytics_enabled=False) as demo:
        gr.api(add, api_name="add")
        number = gr.Number(precision=0)
        number.change(fail, number, number, api_name="fail")
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, inbrowser=False)
    yield url
    demo.close()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "Expected 2 values (a, b), got 0."),
        ([1], "Expected 2 values (a, b), got 1."),
        ([1, 2, 3], "Expected 2 values (a, b), got 3."),
    ],
)
def test_values_that_do_not_fit_are_counted_in_a_sentence(blocks, values, said, capfd):
    answer = httpx.post(f"{blocks}gradio_api/run/add", json={"data": values})
    assert answer.json()["error"] == said
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("value", "said"),
    [([], "A value has the wrong type."), (3, "This call failed with the given values.")],
)
def test_values_that_nobody_can_use_leave_a_line_in_a_public_log(blocks, value, said, capfd):
    answer = httpx.post(f"{blocks}gradio_api/run/fail", json={"data": [value]})
    assert answer.json()["error"] == said
    assert "Traceback" not in "".join(capfd.readouterr())
