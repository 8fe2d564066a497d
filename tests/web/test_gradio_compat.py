"""Gradio still behaves as components/gradio_compat assumes; if not, a file there can go or has to
change."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio.state_holder import StateHolder

from components.gradio_compat import (
    ended_streams,
    lighter_scripts,
    queue_pace,
    queue_state,
    session_state,
    skip_stubs,
)
from components.gradio_compat.event_data import event_data
from components.gradio_compat.kept_values import KeptValues
from components.gradio_compat.readable_errors import ReadableErrors

COMPONENT = "import gradio as gr\n\nclass Mine(gr.HTML):\n    EVENTS = ['act']\n"


# ---------------------------------------------------------------- skip_stubs


def test_gradio_writes_a_stub_unless_it_is_skipped(tmp_path, monkeypatch):
    """It goes back to Gradio's own way in the middle."""
    for name in ("skipped", "written"):
        (tmp_path / f"{name}.py").write_text(COMPONENT)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(inspect, "getfile", inspect.getfile)  # to be put back
    skip_stubs.skip()
    assert import_module("skipped").Mine().act
    inspect.getfile = skip_stubs._getfile
    assert import_module("written").Mine().act
    assert [path.name for path in tmp_path.glob("*.pyi")] == ["written.pyi"]


def test_other_classes_still_have_their_file(monkeypatch):
    monkeypatch.setattr(inspect, "getfile", inspect.getfile)  # to be put back
    skip_stubs.skip()
    assert inspect.getfile(Path).endswith(".py")


# ---------------------------------------------------------------- readable_errors


def adding(blocks: gr.Blocks):
    """The event of an endpoint with two numbers."""

    def add(a: int, b: int) -> int:
        return a + b

    with blocks:
        numbers = [
            gr.Number(label="Batch size", precision=0, minimum=1, maximum=8),
            gr.Number(precision=0),
        ]
        numbers[0].change(add, numbers, numbers[0], api_name="add")
    return next(iter(blocks.fns.values()))


def preprocess(blocks: gr.Blocks, values: list) -> None:
    fn = adding(blocks)
    with ThreadPoolExecutor(1) as pool:  # this thread may have a loop already, of a browser
        pool.submit(lambda: asyncio.run(blocks.preprocess_data(fn, values, None))).result()


def test_gradio_says_nothing_of_values_that_do_not_fit():
    blocks = gr.Blocks(analytics_enabled=False)
    fn = adding(blocks)
    with pytest.raises(ValueError):  # no gr.Error, whose message a client would get
        blocks.validate_inputs(fn, [1])
    blocks.validate_inputs(fn, [1, 2, 3])  # not even noticed
    ours = ReadableErrors(analytics_enabled=False)
    for values in ([1], [1, 2, 3]):
        with pytest.raises(gr.Error, match=f"Expected 2 values \\(a, b\\), got {len(values)}"):
            ours.validate_inputs(adding(ours), values)


def test_gradio_says_nothing_of_values_of_the_wrong_type():
    with pytest.raises(Exception) as plain:
        preprocess(gr.Blocks(analytics_enabled=False), [[], 1])
    assert not isinstance(plain.value, gr.Error)
    with pytest.raises(gr.Error, match="wrong type"):
        preprocess(ReadableErrors(analytics_enabled=False), [[], 1])


def test_gradio_does_not_name_the_number_that_is_out_of_bounds():
    with pytest.raises(gr.Error) as plain:
        preprocess(gr.Blocks(analytics_enabled=False), [0, 1])
    assert "Batch size" not in plain.value.message
    for value, message in ((0, "must be at least 1"), (9, "must be at most 8")):
        with pytest.raises(gr.Error, match=f"^'?Batch size {message}"):
            preprocess(ReadableErrors(analytics_enabled=False), [value, 1])


@pytest.mark.parametrize("name", ["validate_inputs", "preprocess_data", "call_function"])
def test_what_is_overridden_is_there_and_takes_the_same(name):
    theirs, ours = (
        inspect.signature(getattr(blocks, name)) for blocks in (gr.Blocks, ReadableErrors)
    )
    assert list(theirs.parameters)[:2] == list(ours.parameters)[:2] == ["self", "block_fn"]


# ---------------------------------------------------------------- kept_values


def values_of(blocks: gr.Blocks, outputs: int, count: int) -> list:
    """What an event with so many outputs first sends, if it yields `count` times."""

    def work():
        for _ in range(count):
            yield "new" if outputs == 1 else ["new"] * outputs

    with blocks:
        boxes = [gr.Textbox() for _ in range(outputs)]
        boxes[0].change(work, None, boxes)
    fn = next(iter(blocks.fns.values()))
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(blocks.process_api(fn, []))).result()["data"]


@pytest.mark.parametrize("outputs", [1, 3])
def test_gradio_empties_the_outputs_of_a_generator_that_yields_nothing(outputs):
    assert values_of(gr.Blocks(analytics_enabled=False), outputs, 0) == [None] * outputs
    assert values_of(KeptValues(analytics_enabled=False), outputs, 0) == [gr.skip()] * outputs
    assert values_of(KeptValues(analytics_enabled=False), outputs, 1) == ["new"] * outputs
    assert issubclass(ReadableErrors, KeptValues)  # which is the page's


# ---------------------------------------------------------------- event_data


def test_gradio_keeps_an_events_data_private():
    data = {"op": "drop"}
    event = gr.EventData(None, data)
    public = [name for name in vars(event) if not name.startswith("_")]
    assert data not in [getattr(event, name) for name in public]
    assert event_data(event) is data and event_data(gr.EventData(None, [1])) == {}


# ---------------------------------------------------------------- session_state


def test_gradio_keeps_what_a_closed_page_showed():
    with gr.Blocks() as blocks:
        gr.State([1])
        box = gr.Textbox()
    holder = StateHolder()
    holder.set_blocks(blocks)
    holder["page"]._update_value_in_config(box._id, "a picture of megabytes")
    holder["page"].is_closed = True
    holder.delete_all_expired_state()
    assert "megabytes" in repr(holder["page"].config_values)
    session_state.forget_pictures(holder, "page")
    assert "megabytes" not in repr(holder["page"].config_values)
    assert session_state.is_known(holder, "page") and session_state.is_closed(holder, "page")
    session_state.drop(holder, "page")
    assert not session_state.is_known(holder, "page")


# ---------------------------------------------------------------- queue_pace


def test_gradio_looks_for_events_more_often_than_needed(monkeypatch):
    with gr.Blocks(analytics_enabled=False) as blocks:
        blocks.queue()
    queue, pauses = queue_state.queue_of(blocks), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        queue.stopped = len(pauses) % 3 == 0

    def look() -> None:
        queue.stopped = False
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(queue.start_processing())).result()

    monkeypatch.setattr(gr.queueing.asyncio, "sleep", sleep)
    look()
    queue_pace.slow_down(blocks)
    look()
    assert pauses[3:] == [queue_pace.PAUSE] * 3 and max(pauses[:3]) < queue_pace.PAUSE / 10


# ---------------------------------------------------------------- lighter_scripts


@pytest.mark.parametrize("change", lighter_scripts.CHANGES)
def test_gradio_does_work_that_serves_no_purpose(change):
    """tests/browser/test_page.py shows that a page at rest asks for no frames without it."""
    stem, theirs, _ = change
    folder = Path(lighter_scripts.BUILD_PATH_LIB)
    texts = [path.read_text(encoding="utf-8") for path in folder.glob(f"{stem}-*.js")]
    assert sum(len(re.findall(theirs, text)) for text in texts) == 1
    assert all(text not in texts for text in lighter_scripts.scripts().values())


# ---------------------------------------------------------------- queue_state


@pytest.fixture
def app():
    """An app with one event that ends once it is told to: (blocks, API address, function to go)."""
    go = threading.Event()

    def work(a: int) -> int:
        assert go.wait(30)
        return a

    with gr.Blocks(analytics_enabled=False) as blocks:
        number = gr.Number()
        number.change(work, number, number, api_name="work")
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, inbrowser=False)
    yield blocks, f"{url.rstrip('/')}/gradio_api", go.set
    go.set()
    blocks.close()


def until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_gradio_keeps_the_messages_of_a_page_that_left(app):
    blocks, address, go = app
    queue = queue_state.queue_of(blocks)
    body = {"fn_index": 0, "data": [1], "session_hash": "page"}
    event = httpx.post(f"{address}/queue/join", json=body).json()["event_id"]
    assert queue_state.senders(queue) == [("127.0.0.1", "page")]
    assert queue_state.has_messages(queue, "page") and queue_state.has_event(queue, event)
    assert not queue_state.forget_messages(queue, "page")  # it is still running
    go()
    until(lambda: not queue_state.senders(queue))
    assert queue_state.has_messages(queue, "page")  # Gradio's own doing
    until(lambda: queue_state.forget_messages(queue, "page"))
    assert not queue_state.has_messages(queue, "page")
    assert not queue_state.has_event(queue, event)


def test_gradio_answers_for_streams_that_do_not_exist(app):
    _, address, _ = app
    unknown = {"session_hash": "nobody"}
    with httpx.stream("GET", f"{address}/queue/data", params=unknown) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


# ---------------------------------------------------------------- ended_streams


def test_gradio_logs_a_traceback_of_a_page_that_was_left(app, caplog, monkeypatch):
    _, address, _ = app
    log = logging.getLogger("uvicorn.error")
    monkeypatch.setattr(log, "filters", [])

    def leave() -> None:
        """What becomes of a stream whose messages are gone."""
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{address}/queue/data", params={"session_hash": "nobody"})

    leave()
    assert [record.exc_info[0] for record in caplog.records] == [RuntimeError]
    caplog.clear()
    ended_streams.keep_out_of_the_log()
    ended_streams.keep_out_of_the_log()
    leave()
    assert not caplog.records and len(log.filters) == 1
    log.error("a fault of ours", exc_info=ValueError("bad"))
    assert len(caplog.records) == 1
