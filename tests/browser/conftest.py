"""The app as people meet it: a server of its own, and headless Chromium.

The server is a process: it must not share this one's weights, and it has to start as a user's does.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from hands import layers
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks._chromium import CHROMIUM, FLAGS

ROOT = Path(__file__).parents[2]
expect.set_options(timeout=20_000)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serve(folder: Path, *options: str):
    """Start the app in `folder`; yields its address and stops it."""
    port = _free_port()
    log = folder / "app.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--no-browser", "--port", str(port), *options],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(720):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.25)
        else:
            raise AssertionError(f"The app did not start:\n{log.read_text()}")
        yield url
        message = log.read_text()
        assert "Traceback" not in message, message
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def app_folder(tmp_path_factory) -> Path:
    """Where the app runs: what it saves lands there."""
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="session")
def app(bundled, app_folder):
    """The app on one's own machine. `bundled` has made sure that nothing is fetched now."""
    yield from serve(app_folder)


@pytest.fixture(scope="session")
def public_app(bundled, tmp_path_factory):
    """The app as strangers get it."""
    yield from serve(tmp_path_factory.mktemp("public"), "--public")


@pytest.fixture(scope="module")
def healing_app(bundled, tmp_path_factory):
    """The app as strangers get it where they may heal."""
    yield from serve(tmp_path_factory.mktemp("healing"), "--public", "--allow-healing")


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """A function: the page at an address, in a session of its own. Errors on it fail the test, and
    so does any request that leaves for another host."""
    contexts, problems = [], []

    def opened(url: str, width: int = 1600, height: int = 900, **options) -> Page:
        options = {"reduced_motion": "reduce", **options}  # tiles are where they belong at once
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        origin = "/".join(url.split("/")[:3])
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((origin, "data:", "blob:"))
                else problems.append(f"asked {request.url}")
            ),
        )
        page.goto(url)
        expect(layers(page, "patient").first).to_be_visible()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def page(app, open_page) -> Page:
    """The app's page on the bundled model."""
    return open_page(app)
