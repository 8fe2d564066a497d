"""A public page, attacked over the wire: files, uploads, other people's sessions, markup;
and what it still offers."""

import json
import re
import secrets
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile

import pytest
import tiny
from hands import (
    depth,
    do_step,
    jump,
    layers,
    open_base,
    open_lesson,
    plan_box,
    step_checked,
    write_plan,
)
from playwright.sync_api import expect

from surgery.lesson.course import STEPS


def ask(url: str, body: dict | bytes | None = None, method: str | None = None) -> tuple[int, str]:
    """Status and text of the answer to a request."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(2_000_000).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../../etc/passwd",
        "gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        "gradio_api/file=file:///etc/passwd",
        "gradio_api/file=//etc/passwd",
        "gradio_api/file=README.md",
        "gradio_api/file=components/page.py",
        "gradio_api/file=app.log",
        "gradio_api/file/etc/passwd",
        "gradio_api/proxy=https://example.com/",
        "static/../../../../../../etc/passwd",
        "assets/../../../../../../etc/passwd",
        "assets/%2e%2e/%2e%2e/routes.py",
        "gradio_api/custom_component/1/client/component/../../../etc/passwd",
    ],
)
def test_no_file_of_the_machine_comes_out(public_app, path):
    status, message = ask(f"{public_app}/{path}")
    assert status in (403, 404, 405), message
    assert "root:" not in message and "Traceback" not in message and "import " not in message


def test_nothing_is_taken_in(public_app):
    for path in ("upload", "component_server", "process_recording", "vibe-edit/"):
        assert ask(f"{public_app}/gradio_api/{path}", b"x" * 1000)[0] == 403
    join = urllib.request.Request(
        f"{public_app}/gradio_api/queue/join", b"{}", {"content-length": "2000000"}
    )
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(join, timeout=30)


def test_the_pages_own_handlers_are_not_for_programs(public_app):
    _, config = ask(f"{public_app}/config")
    events = json.loads(config)["dependencies"]
    assert events
    _, info = ask(f"{public_app}/gradio_api/info")
    named = json.loads(info)["named_endpoints"]
    for handler in ("choose", "edit", "speak", "keep"):
        assert f"/{handler}" not in named
        for way in ("call", "run", "api"):
            assert ask(f"{public_app}/gradio_api/{way}/{handler}", {"data": []})[0] == 403


def told(url: str, session: str, name: str, data: list) -> str:
    """All that the page is told by one of its events, as it comes over the wire."""
    events = json.loads(ask(f"{url}/config")[1])["dependencies"]
    event = next(event for event in events if event["api_name"] == name)
    data = data + [None] * (len(event["inputs"]) - len(data))
    body = {"fn_index": event["id"], "session_hash": session, "data": data}
    assert ask(f"{url}/gradio_api/queue/join", body)[0] == 200
    stream = f"{url}/gradio_api/queue/data?session_hash={session}"
    with urllib.request.urlopen(stream, timeout=120) as answer:
        return answer.read().decode()


# A model of one's own that is made and saved in a moment.
SMALL = (
    "config:bundled,num_hidden_layers=2,hidden_size=192,intermediate_size=96,"
    "num_attention_heads=3,num_key_value_heads=3"
)


def test_plans_and_downloads_of_others_are_out_of_reach(public_app, open_page):
    """Somebody who sends events by hand gets a session of his own, whatever ids he makes up. And
    neither what the events say nor what stands on the page names a folder of the machine."""
    page = open_page(public_app)
    write_plan(page, "0:3")
    depth(page, 3)
    events = json.loads(ask(f"{public_app}/config")[1])["dependencies"]
    for event in [event for event in events if event["api_name"] in ("choose", "arrive", "edit")]:
        body = {
            "fn_index": event["id"],
            "session_hash": secrets.token_hex(6),
            "data": [None] * len(event["inputs"]),
            "event_data": {"op": "write", "text": "0:5", "revision": 2},
            "event_id": "0" * 32,
        }
        assert ask(f"{public_app}/gradio_api/queue/join", body)[0] in (200, 404, 422)
        cancel = {"session_hash": "x", "fn_index": event["id"], "event_id": "0" * 32}
        assert ask(f"{public_app}/gradio_api/cancel", cancel)[0] in (200, 404)
    page.wait_for_timeout(1000)
    expect(plan_box(page)).to_have_value("0:3")
    write_plan(page, "0:2")
    depth(page, 2)

    session = secrets.token_hex(6)
    reports = told(public_app, session, "choose", [SMALL])
    reports += told(
        public_app, session, "keep", [None, None, "four", "as stored", "a download (.zip)"]
    )
    assert "four.zip is ready" in reports
    page.get_by_role("tab", name="Save").click()
    page.get_by_label("Name").fill("../mine")
    page.locator("#save").click()
    button = page.locator("#download a")
    expect(button).to_be_visible(timeout=120_000)
    address = button.get_attribute("href")
    assert re.fullmatch(r"downloads/[\w-]{32}/mine\.zip", address)
    for text in (reports, page.content()):
        for place in (f"{tempfile.gettempdir()}/", "layer-surgery-downloads", "file="):
            assert place not in text

    # Only by its whole address, and only until its session has left.
    _, secret, name = address.split("/")
    assert ask(f"{public_app}/{address}", method="HEAD")[0] == 200
    for guess in (secrets.token_urlsafe(24), session, secret.swapcase(), secret[:-1]):
        assert ask(f"{public_app}/downloads/{guess}/{name}")[0] == 404
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == "mine.zip"
    assert zipfile.is_zipfile(download.value.path())
    page.close()
    for _ in range(100):
        if ask(f"{public_app}/{address}", method="HEAD")[0] == 404:
            break
        time.sleep(0.2)
    else:
        raise AssertionError("It can still be fetched.")


def test_strangers_get_nothing_of_this_machine(public_app, open_page, tmp_path):
    """No path that they type or bring in a link is opened, what is markup is shown as text, and
    nothing runs before they ask for it."""
    page = open_page(f"{public_app}/#auto-run")
    expect(page.get_by_role("switch", name="Auto-run")).not_to_be_checked()
    message = page.locator("#about .status.failed p")
    tiny.model("llama").save_pretrained(tmp_path)
    for spec in (str(tmp_path), f"config:{tmp_path}/config.json", "x.gguf", "../"):
        open_base(page, spec)
        expect(message).to_contain_text("On a public page")
    page.get_by_role("tab", name="Save").click()
    expect(page.get_by_label("a download (.zip)")).to_be_visible()
    assert page.get_by_label("a folder on this machine").count() == 0
    page.goto(f"{public_app}/?base=/etc&plan=0:3")
    expect(message).to_contain_text("On a public page")

    open_base(page, SMALL)
    depth(page, 2)
    expect(message).to_have_count(0)
    for spec in ("<img src=x onerror=alert(1)>", "config:bundled,hidden_act=<script>alert(1)"):
        open_base(page, spec)
        expect(message).to_be_visible()
    open_base(page, "config:bundled,num_hidden_layers=3,hidden_act=<img src=x onerror=alert(1)>")
    expect(message).to_contain_text("<img src=x")
    write_plan(page, "<img src=x onerror=alert(1)>")
    expect(page.locator(".strip-error")).to_contain_text("<img src=x")
    assert page.locator("img[src=x]").count() == 0


def test_every_panel_and_the_lesson_ask_their_own_server_alone(public_app, open_page):
    """`open_page` fails for any request to another host; here all panels are opened."""
    page = open_page(public_app)
    refused = []
    page.on("response", lambda answer: answer.status >= 400 and refused.append(answer.url))
    page.reload()
    expect(layers(page, "patient").first).to_be_visible()
    for tab in page.get_by_role("tab").all():
        tab.click()
        page.wait_for_timeout(700)
    expect(layers(page, "patient").first).to_be_visible()
    sources = page.evaluate(
        "[...document.querySelectorAll('script[src], link[href], img[src], iframe')]"
        ".map(x => new URL(x.src || x.href, location).origin)"
    )
    assert set(sources) <= {public_app, "null"}
    open_lesson(page)
    jump(page, 4)
    do_step(page)
    step_checked(page, STEPS[3])
    assert not refused  # the page needs none of the routes that are closed
