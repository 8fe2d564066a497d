"""Where a public page writes, and how much."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Hub

from components import area, bases, deployment
from components.area import Area
from components.deployment import Deployment
from surgery import BaseError

ROOT = Path(__file__).parents[2]


def fill(area: Area, name: str, size: int) -> Path:
    folder = area.hub / f"models--{name.replace('/', '--')}"
    folder.mkdir(parents=True)
    (folder / "blob").write_bytes(os.urandom(size))
    return folder


def test_models_that_nobody_has_open_make_room_the_oldest_first(tmp_path):
    made = Area(tmp_path)
    old, new, kept = (fill(made, name, 1 << 20) for name in ("a/old", "a/new", "a/kept"))
    for age, folder in ((30, old), (20, new), (40, kept)):
        os.utime(folder, (1e9 - age, 1e9 - age))
    linked = made.hub / "models--a--linked"
    (tmp_path.parent / "elsewhere").mkdir(exist_ok=True)
    linked.symlink_to(tmp_path.parent / "elsewhere")
    assert 3 << 20 <= made.used() < 4 << 20
    assert made.make_room(1 << 20, 9 << 20, ["a/kept"]) and old.exists()
    assert made.make_room(2 << 20, 4_500_000, ["a/kept"])
    assert not old.exists() and new.exists() and kept.exists() and linked.exists()
    assert not made.make_room(9 << 20, 9 << 20, ["a/kept"])
    assert kept.exists() and linked.exists()


def test_a_save_that_finds_no_room_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(area, "_area", Area(tmp_path))
    before = deployment.current()
    deployment.use(Deployment.of(public=True, max_disk_bytes=1000))
    try:
        with pytest.raises(BaseError, match="no room left"):
            bases.make_disk_room(2000)
        bases.make_disk_room(500)
    finally:
        deployment.use(before)


def test_everything_is_written_there_and_the_owners_token_stays_at_home(tiny_folder, tmp_path):
    """A process prepared as the app prepares it, against a Hub in miniature."""
    hub = Hub()
    hub.repos["org/llama"] = tiny_folder("llama")
    owner = tmp_path / "owner"
    private = owner / "hub" / "models--org--private" / "snapshots"
    private.mkdir(parents=True)
    before = sorted(owner.rglob("*"))
    code = """
import json, os, tempfile
from components import area
made = area.prepare()
from components import bases, deployment
deployment.use(deployment.Deployment.of(public=True))
base = bases.load("org/llama", lambda *a: None)
from surgery.tally import survey_base
survey_base(base)
with tempfile.NamedTemporaryFile() as file:
    temporary = file.name
try:
    bases.get("org/private")
except ValueError as error:
    said = str(error)
print(json.dumps([base.depth, str(made.folder), temporary, made.used(), said,
                  sorted(p.name for p in made.hub.iterdir())]))
"""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(owner),
                "HF_TOKEN": "hf_owners_own_secret",
                "HF_HUB_DISABLE_XET": "1",
                "LAYER_SURGERY_CACHE": str(owner / "ours"),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not done.returncode, done.stderr
    finally:
        hub.close()
    depth, folder, temporary, used, said, models = json.loads(done.stdout.splitlines()[-1])
    assert depth == 6 and used > 100_000 and "models--org--llama" in models
    assert temporary.startswith(folder) and "There is no model" in said
    assert sorted(owner.rglob("*")) == before  # nothing came into the owner's folders
    assert hub.tokens == {None}
    assert not Path(folder).exists()  # gone with the process
