"""How a page shows a base that it remembers before the library is there."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr
import pytest

from components.panels.base.wiring import open_for
from components.panels.log import figures
from components.panels.quality.asked import Asked
from components.panels.quality.wiring import measure_latest
from components.parts import sizes_of, tiles_of
from components.services import heavy_imports
from components.services.checkpoints import AS_STORED, write
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.measurements import Entry, Measure
from components.sessions.session import Session
from surgery import Base, BaseError, Plan, known_base
from surgery.operation import Operation
from surgery.progress import silent


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(tiny_folder, tmp_path):
    """A base in a folder that may be written to."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_folder("gemma3_text").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def starting(monkeypatch):
    """The library is not imported yet."""
    monkeypatch.setattr(heavy_imports, "is_ready", lambda: False)


def opened(services: Services, spec: str, plan: str = "") -> list:
    return list(told(open_for(services, Session(), HealedStore(), spec, plan, None)))


def told(steps: Iterator) -> Iterator:
    """The steps but for those that change nothing, which only show that the work goes on."""
    return (step for step in steps if step != (gr.skip(),) * 4)


def test_numbers_are_shown_before_the_library_is_there(copy, starting):
    spec = str(copy)
    *_, last = opened(Services.of(), spec, "0:4")  # once, so that it is remembered
    services, session = Services.of(), Session()
    steps = open_for(services, session, HealedStore(), spec, "0:4", None)
    about, strip, tiles, _ = next(steps)
    assert services.bases.names == []
    assert len(strip["patient"]) == 4 and strip["depth"] == 6
    assert about == last[0] and {**tiles, "order": 0} == {**last[2], "order": 0}
    assert tiles["parameters"]["base"] > tiles["parameters"]["patient"] > 0
    # An edit is answered in numbers, too.
    session.apply({"op": "write", "text": "0:2", "revision": strip["revision"]})
    edited = tiles_of(services, session, HealedStore())
    assert services.bases.names == [] and edited["parameters"] != tiles["parameters"]
    rest = list(told(steps))
    assert {step[0]["text"] for step in rest} == {about["text"]}  # it doesn't flicker
    about, strip, tiles, _ = rest[-1]
    assert services.bases.names == [spec]
    assert strip["text"] == "0:2"  # what was done meanwhile stays
    assert tiles == edited


def test_a_base_that_takes_long_shows_its_progress(copy, starting, monkeypatch):
    opened(Services.of(), str(copy))
    monkeypatch.setattr("components.panels.base.wiring._QUIET", 0.0)
    services = Services.of()
    real, seen = services.bases.get, threading.Event()

    def slowly(spec, progress=None):
        if progress:
            progress("Opening", 1, 2)
            seen.wait(60)
        return real(spec, progress)

    monkeypatch.setattr(services.bases, "get", slowly)
    steps = open_for(services, Session(), HealedStore(), str(copy), "", None)
    for status, _, _, stop in told(steps):
        if status["share"] == 0.5:
            assert stop["visible"]
            seen.set()
    assert seen.is_set()


def test_a_memory_that_was_wrong_is_drawn_over(copy, tiny_folder, starting, monkeypatch):
    wrong = known_base.KnownBase.of(Base.open(str(tiny_folder("gpt2"))))
    monkeypatch.setattr(known_base, "recall", lambda spec, **_: wrong)
    steps = opened(Services.of(), str(copy), "0:2")
    assert steps[0][1]["name"] == wrong.name
    assert steps[-1][1]["name"] == "model" and steps[-1][1]["text"] == "0:2"
    assert steps[-1][2]["parameters"] != steps[0][2]["parameters"]


def test_what_can_not_be_opened_after_all_is_said(copy, starting, monkeypatch):
    opened(Services.of(), str(copy))
    services = Services.of()

    def fails(spec, progress):
        raise BaseError("It is gone.")

    monkeypatch.setattr(services.bases, "get", fails)
    steps = opened(services, str(copy))
    assert steps[0][2]["parameters"]
    assert steps[-1][0] == {"text": "It is gone.", "share": None, "failed": True}


def test_a_base_that_changed_is_not_shown_as_it_was(copy, starting):
    opened(Services.of(), str(copy))
    assert Services.of().bases.expect(str(copy)).depth == 6
    os.utime(copy / "config.json", ns=(1, 1))
    assert Services.of().bases.expect(str(copy)) is None


def test_a_public_page_remembers_nothing(public_services, own_cache, copy, starting, monkeypatch):
    base = Base.open(str(copy))
    monkeypatch.setattr(public_services.bases, "get", lambda *_: base)
    monkeypatch.setattr(known_base, "recall", lambda *_, **__: pytest.fail("recalled"))
    steps = opened(public_services, "org/model")
    assert steps[-1][1]["depth"] == 6
    assert not (own_cache / "known-bases").exists()


def test_what_is_opened_is_named_until_it_is_there(copy, monkeypatch):
    services = Services.of()
    real = services.bases.get

    def slowly(spec, progress=None):
        if progress:
            progress("Reading the config", 0, 0)
            time.sleep(0.5)
        return real(spec, progress)

    monkeypatch.setattr(services.bases, "get", slowly)
    first, *_, last = opened(services, str(copy))
    assert first[0]["text"].startswith("Opening ")
    assert first[1] == {"opening": f"Opening {str(copy)[:80]}…"}
    assert last[1]["name"] == "model"


def test_a_base_that_fails_to_open_leaves_the_one_that_is_open(copy):
    services, session = Services.of(), Session()
    healed = HealedStore()
    (*_, (said, strip, *_)) = open_for(services, session, healed, "/no/such/folder", "", None)
    assert said["failed"] and "still open" not in said["text"]
    assert strip["note"].startswith("Choose a base above")
    list(open_for(services, session, HealedStore(), str(copy), "", None))
    (*_, (said, *_)) = open_for(services, session, HealedStore(), "/no/such/folder", "", None)
    assert said["failed"] and said["text"].endswith("model is still open.")
    assert session.name == "model" and session.view()["depth"] == 6


def test_a_base_whose_files_changed_is_shown_anew_once_it_is_opened_again(copy, tiny_folder):
    """Until then the page works with the base of its plan, and nothing is called what it was."""
    services, session, healed, spec = Services.of(), Session(), HealedStore(), str(copy)
    list(open_for(services, session, healed, spec, "0:2, 4:6", None))
    base, plan = services.bases.get(spec), session.plan
    healed.keep(Operation(spec, plan, SimpleNamespace(plan=plan, word="healed", base=base)))
    before = tiles_of(services, session, healed)
    session.measurements.add(Entry.of(base, Operation(spec, plan), Measure(9.0, 8.0, 10.0, 50), ""))
    for file in tiny_folder("gemma3_text").iterdir():
        os.utime(copy / file.name, ns=(1, 1))
    assert tiles_of(services, session, healed) == before
    with pytest.raises(BaseError, match="open it again"):
        healed.operation(spec, plan)
    (*_, (_, strip, tiles, _)) = open_for(services, session, healed, spec, "", None)
    assert strip["whole"] and not strip["undo"] and strip["order"] > before["order"]
    assert not tiles["error"] and session.identity == services.bases.get(spec).identity
    session.become(str(plan))
    assert healed.operation(spec, session.plan) == Operation(spec, plan)
    (row,) = figures.table(session.measurements, session.identity)["entries"]
    assert not row["here"]


def test_a_base_that_another_page_opened_again_is_not_mistaken_for_the_one_that_is_shown(
    copy, tmp_path
):
    services, session, healed, spec = Services.of(), Session(), HealedStore(), str(copy)
    list(open_for(services, session, healed, spec, "", None))
    Base.open(spec).save(Plan.parse("0:4", 6), tmp_path / "shorter")
    shutil.rmtree(copy)
    (tmp_path / "shorter").rename(copy)
    list(open_for(services, Session(), HealedStore(), spec, "", None))
    assert services.bases.get(spec).depth == 4
    assert "open it again" in tiles_of(services, session, healed)["error"]
    revision = session.view()["revision"]
    session.apply({"op": "try", "presets": {"drop-middle": {}}, "revision": revision})
    assert "open it again" in sizes_of(services, session)["drop-middle"]
    *_, last = measure_latest(services, session, healed, Asked(), None)
    assert last["failed"] and "open it again" in last["message"]
    for use in (services.bases.get, services.bases.load):
        for of in (session, session.shown, session.operation(healed)):
            with pytest.raises(BaseError, match="open it again"):
                use(of, silent)
    with pytest.raises(BaseError, match="open it again"):
        write(services.bases, session.operation(healed), "", AS_STORED, tmp_path, False, silent)
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("cache", copy.name)] == []


def test_a_base_that_is_opened_again_is_still_healed(services, tiny_folder):
    session, healed, spec = Session(), HealedStore(), str(tiny_folder("llama"))
    for _ in open_for(services, session, healed, spec, "0:2, 4:6", None):
        pass
    patient = SimpleNamespace(plan=session.plan, word="healed", base=services.bases.get(spec))
    healed.keep(Operation(spec, session.plan, patient))
    *_, (_, _, tiles, _) = open_for(services, session, healed, spec, "", None)
    assert "shared, except for healed weights" in [tile["detail"] for tile in tiles["tiles"]]
