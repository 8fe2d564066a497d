"""The app as people meet it: a server of its own, and headless Chromium.

The server is a process: it must not share this one's weights. The public one starts as a user's
does; the others are forked from a process that has imported what takes seconds.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import pytest
from hands import layers
from one_page import OnePage, one_page
from playwright.sync_api import Browser, Page, expect, sync_playwright
from warm import Started, Warm
from watched_page import WatchedPage

from benchmarks._chromium import CHROMIUM, FLAGS

ROOT = Path(__file__).parents[2]
expect.set_options(timeout=40_000)

# Tests edit plans all the time: texts follow only where a test wants them to.
_NO_AUTO_RUN = """if (!location.hash.includes('auto-run')) {
  try { localStorage.setItem('layer-surgery-auto-run', 'off'); } catch {}
}"""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _started(folder: Path, log: BinaryIO, *options: str) -> subprocess.Popen:
    """The app, as a user starts it."""
    command = [sys.executable, str(ROOT / "app.py"), *options]
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def _forked(warm: Warm, folder: Path, log: BinaryIO, *options: str) -> Started:
    """The same, with the library imported already."""
    streams = {"stdout": log.fileno(), "stderr": log.fileno()}
    return warm.start("-m", "app", *options, cwd=folder, **streams)


def serve(folder: Path, *options: str, start=_started):
    """Start the app in `folder`; yields its address and stops it."""
    port = _free_port()
    log = folder / "app.log"
    with open(log, "wb") as output:
        process = start(folder, output, "--no-browser", "--port", str(port), *options)
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
        process.wait()


@pytest.fixture(scope="session")
def app_folder(tmp_path_factory) -> Path:
    """Where the app runs: what it saves lands there."""
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="session")
def app(bundled, warm, app_folder):
    """The app on one's own machine. `bundled` has made sure that nothing is fetched now. Plans are
    measured only when asked for, which leaves the processors to what is tested."""
    yield from serve(app_folder, "--measure-when-asked", start=partial(_forked, warm))


@pytest.fixture(scope="module")
def measuring_app(bundled, warm, tmp_path_factory):
    """The same app, as it comes: it measures each plan."""
    yield from serve(tmp_path_factory.mktemp("measuring"), start=partial(_forked, warm))


@pytest.fixture(scope="session")
def public_app(bundled, tmp_path_factory):
    """The app as strangers get it where they may heal: they can't do more on any page."""
    yield from serve(tmp_path_factory.mktemp("public"), "--public", "--allow-healing")


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Tabs:
    """Browser contexts with one page each. One that is not needed any more is emptied and used
    again: a new one compiles the page's JavaScript anew, which takes over a second."""

    def __init__(self, chromium: Browser) -> None:
        self._chromium = chromium
        self._idle: list[Page] = []

    def take(self, width: int, height: int, scheme: str, phone: bool) -> Page:
        """An empty page, as in a new window. A phone has a touch screen and no mouse."""
        if self._idle and not phone:
            page = self._idle.pop()
        else:
            context = self._chromium.new_context(has_touch=phone, is_mobile=phone)
            context.add_init_script(_NO_AUTO_RUN)
            page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        # Without motion, tiles are where they belong at once.
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        return page

    def give_back(self, page: Page, phone: bool) -> None:
        """Leave the page, with nothing stored; one that was closed is replaced."""
        context = page.context
        if phone:
            context.close()
            return
        origin = "/".join(page.url.split("/")[:3])
        if page.is_closed():
            page = context.new_page()
        else:
            page.mouse.move(0, 0)
            page.evaluate("sessionStorage.clear()")
            page.goto("about:blank")
        session = context.new_cdp_session(page)
        stored = {"origin": origin, "storageTypes": "local_storage,cookies"}
        session.send("Storage.clearDataForOrigin", stored)
        session.detach()
        self._idle.append(page)


@pytest.fixture(scope="session")
def tabs(chromium) -> Tabs:
    return Tabs(chromium)


@pytest.fixture
def open_page(tabs):
    """A function: the page at an address, in a session of its own. Errors on it fail the test, and
    so does any request that leaves for another host."""
    pages: list[tuple[WatchedPage, bool]] = []
    problems: list[str] = []

    def leave(done) -> None:
        for one in [one for one in pages if done(one[0].page)]:
            pages.remove(one)
            watched, phone = one
            problems.extend(watched.leave())
            tabs.give_back(watched.page, phone)

    def opened(
        url: str, width: int = 1600, height: int = 900, scheme: str = "light", phone: bool = False
    ) -> Page:
        leave(lambda page: page.is_closed())
        page = tabs.take(width, height, scheme, phone)
        pages.append((WatchedPage(page, url), phone))
        page.goto(url)
        # The app may have just been started.
        expect(layers(page, "patient").first).to_be_visible(timeout=120_000)
        return page

    yield opened
    leave(lambda page: True)
    assert not problems


@pytest.fixture
def page(app, open_page) -> Page:
    """The app's page on the bundled model."""
    return open_page(app)


@pytest.fixture(scope="module")
def opened(app, tabs) -> Iterator[OnePage]:
    """A page that all tests of a file share; `opened.visit()` gives it as it was opened."""
    with one_page(tabs, app) as one:
        yield one


@pytest.fixture(scope="session")
def small_base(tmp_path_factory) -> Path:
    """A random base with as many layers as the bundled one, and its tokenizer. It computes forty
    times as fast: for what happens on the page whatever the numbers and the words are."""
    import tiny

    from surgery import Base

    folder = tmp_path_factory.mktemp("base") / "small"
    tokenizer = Base.open("bundled").tokenizer
    like = dict(num_hidden_layers=30, vocab_size=len(tokenizer), max_position_embeddings=2048)
    tiny.model("llama", **like).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def open_small(small_base, open_page):
    """A function: the page of an app on the small base. `query` is more of the address."""

    def opened(app: str, query: str = "", **options) -> Page:
        page = open_page(f"{app}/?base={quote(str(small_base), safe='')}{query}", **options)
        expect(page.locator("#base input")).to_have_value(str(small_base))
        return page

    return opened


@pytest.fixture
def small_page(app, open_small) -> Page:
    """The app's page on the small base."""
    return open_small(app)
