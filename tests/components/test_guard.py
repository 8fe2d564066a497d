"""Which requests reach the app of a public page."""

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from components.guard import MAX_BODY, Guard


@pytest.fixture(scope="module")
def client():
    app = FastAPI(middleware=[Middleware(Guard, names=["preview", "save"])])

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def anything(request: Request):
        return {"size": len(await request.body())}

    return TestClient(app)


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
        ("PUT", "/gradio_api/queue/join"),
        ("DELETE", "/"),
    ],
)
def test_what_the_page_has_no_use_for_is_refused(client, method, path):
    assert client.request(method, path, content=b"x").status_code in (403, 404, 405)


@pytest.mark.parametrize(
    "path", ["/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/call/save"]
)
def test_what_it_needs_passes_up_to_a_size(client, path):
    answer = client.post(path, content=b"x" * MAX_BODY)
    assert answer.json() == {"size": MAX_BODY}
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert client.post(path, content=b"x" * (MAX_BODY + 1)).status_code == 413


def test_a_length_that_is_not_claimed_helps_nobody(client):
    def endless():
        for _ in range(40):
            yield b"x" * 100_000

    with pytest.raises(ClientDisconnect):
        client.post("/gradio_api/queue/join", content=endless())
