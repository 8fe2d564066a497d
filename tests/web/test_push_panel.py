"""Pushing from a Space: only there, only into one's own namespace, and the token nowhere."""

import logging

import pytest
from updates import run

from components.panels.save import push, push_wiring
from components.panels.save.push import NEEDED, offered
from components.panels.save.push_wiring import upload
from components.services.deployment import Deployment
from surgery import Plan, SaveError
from surgery.healing import Settings, heal
from surgery.operation import Operation

TOKEN = "hf_visitors_own_secret"


@pytest.fixture
def sent(monkeypatch):
    """What the library's push is asked; it says yes unless `error` is set."""
    calls: list = []

    def push(folder, place, *, private, progress, token):
        calls.append((sorted(p.name for p in folder.iterdir()), place, private, token))
        if push.error:
            raise push.error
        return f"https://hub.invalid/{place}"

    push.error = None
    calls.append(push)
    monkeypatch.setattr(push_wiring, "push", push)
    return calls


def test_it_is_offered_only_on_a_space_that_asks_for_sign_in(monkeypatch):
    for name in NEEDED:
        monkeypatch.setenv(name, "x")
    elsewhere = Deployment.of(public=True)
    assert not offered(elsewhere) and push.layout(elsewhere) is None
    monkeypatch.setenv("SPACE_ID", "me/space")
    space = Deployment.of()
    assert offered(space)
    monkeypatch.delenv(NEEDED[0])  # a copy of the Space without hf_oauth
    assert not offered(space)


def test_a_push_goes_to_ones_own_namespace_and_is_private(
    services, sent, tiny_folder, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    operation = Operation(str(tiny_folder("llama")), Plan.parse("0:3", 6))
    message = list(upload(services, operation, "../other/model x", True, "me", lambda: TOKEN))
    files, place, private, token = sent[1]
    assert place == "me/model-x" and private and token == TOKEN
    assert "config.json" in files and "model.safetensors" in files
    assert message[-1]["text"] == "Pushed to https://hub.invalid/me/model-x"
    out = capfd.readouterr()
    assert TOKEN not in repr(message) + caplog.text + out.out + out.err
    assert not list(services.downloads.folder.iterdir())


def test_a_healed_patient_is_pushed_as_it_is(services, sent, tiny_folder, tmp_path):
    spec, plan = str(tiny_folder("llama")), Plan.parse("0:2, 4:6", 6)
    healed = heal(
        services.bases.get(spec), plan, Settings(steps=1, batch=2, window=16), tmp_path / "run"
    )
    *_, last = upload(services, Operation(spec, plan, healed), "x", True, "me", lambda: TOKEN)
    assert not last["failed"] and "healing.json" in sent[1][0]


def test_a_push_that_fails_leaves_nothing_behind(services, sent, tiny_folder):
    sent[0].error = SaveError("You may not write to me/x.")
    operation = Operation(str(tiny_folder("llama")), Plan.parse("0:3", 6))
    work = upload(services, operation, "x", False, "me", lambda: TOKEN)
    *_, last = run(services, work, lambda status: status)
    assert last["failed"] and "may not write" in last["text"]
    assert not list(services.downloads.folder.iterdir())
