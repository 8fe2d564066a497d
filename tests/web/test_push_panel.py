"""Pushing from a Space: only there, only into one's own namespace, and the token nowhere."""

import logging

import pytest

from components.panels.save import push as push_panel
from components.panels.save.push import _NEEDED, offered, upload
from components.services import bases, deployment
from components.services.deployment import Deployment
from components.services.downloads import Downloads
from surgery import Plan, SaveError
from surgery.healing import Settings, heal

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
    monkeypatch.setattr(push_panel, "push", push)
    return calls


def test_it_is_offered_only_on_a_space_that_asks_for_sign_in(monkeypatch):
    before = deployment.current()
    try:
        for name in _NEEDED:
            monkeypatch.setenv(name, "x")
        deployment.use(Deployment.of(public=True))
        assert not offered() and push_panel.push_panel() is None
        monkeypatch.setenv("SPACE_ID", "me/space")
        deployment.use(Deployment.of())
        assert offered()
        monkeypatch.delenv(_NEEDED[0])  # a copy of the Space without hf_oauth
        assert not offered()
    finally:
        deployment.use(before)


def test_a_push_goes_to_ones_own_namespace_and_is_private(sent, tiny_folder, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    spec, before = str(tiny_folder("llama")), set(Downloads.shared().folder.iterdir())
    said = list(upload(spec, Plan.parse("0:3", 6), "../other/model x", True, "me", lambda: TOKEN))
    files, place, private, token = sent[1]
    assert place == "me/model-x" and private and token == TOKEN
    assert "config.json" in files and "model.safetensors" in files
    assert said[-1]["text"] == "It is at https://hub.invalid/me/model-x"
    out = capfd.readouterr()
    assert TOKEN not in repr(said) + caplog.text + out.out + out.err
    assert set(Downloads.shared().folder.iterdir()) == before


def test_a_healed_patient_is_pushed_as_it_is(sent, tiny_folder, tmp_path):
    spec, plan = str(tiny_folder("llama")), Plan.parse("0:2, 4:6", 6)
    healed = heal(bases.get(spec), plan, Settings(steps=1, batch=2, window=16), tmp_path / "run")
    *_, last = upload(spec, plan, "x", True, "me", lambda: TOKEN, healed)
    assert not last["failed"] and "healing.json" in sent[1][0]


def test_a_push_that_fails_leaves_nothing_behind(sent, tiny_folder):
    sent[0].error = SaveError("You may not write to me/x.")
    spec, before = str(tiny_folder("llama")), set(Downloads.shared().folder.iterdir())
    *_, last = upload(spec, Plan.parse("0:3", 6), "x", False, "me", lambda: TOKEN)
    assert last["failed"] and "may not write" in last["text"]
    assert set(Downloads.shared().folder.iterdir()) == before
