"""Where a public page writes, and how much."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny
from hub_server import Hub
from updates import run

import surgery
from components.panels.save.wiring import ended, save
from components.services.bases import Bases
from components.services.checkpoints import AS_STORED
from components.services.deployment import Deployment
from components.services.public_storage import Storage
from components.services.services import Services
from surgery import BaseError, Plan
from surgery.checkpoint.save import saved_bytes
from surgery.operation import Operation

ROOT = Path(__file__).parents[2]


def fill(area: Storage, name: str, size: int) -> Path:
    folder = area.hub / f"models--{name.replace('/', '--')}"
    folder.mkdir(parents=True)
    (folder / "blob").write_bytes(os.urandom(size))
    return folder


def test_models_that_nobody_has_open_make_room_the_oldest_first(tmp_path):
    made = Storage(tmp_path)
    old, new, kept = (fill(made, name, 1 << 20) for name in ("a/old", "a/new", "a/kept"))
    for age, folder in ((30, old), (20, new), (40, kept)):
        os.utime(folder, (1e9 - age, 1e9 - age))
    linked = made.hub / "models--a--linked"
    (tmp_path.parent / "elsewhere").mkdir(exist_ok=True)
    linked.symlink_to(tmp_path.parent / "elsewhere")
    assert 3 << 20 <= made.used() < 4 << 20
    place = tmp_path / "saved"
    with made.room(1 << 20, place, 9 << 20, ["a/kept"]) as fits:
        assert fits and old.exists()
    with made.room(2 << 20, place, 4_500_000, ["a/kept"]) as fits:
        assert fits and not old.exists() and new.exists() and kept.exists() and linked.exists()
    with made.room(9 << 20, place, 9 << 20, ["a/kept"]) as fits:
        assert not fits and kept.exists() and linked.exists()


def test_room_that_is_reserved_is_nobody_elses_and_comes_back_on_every_way_out(tmp_path):
    made, quota = Storage(tmp_path), 10 << 20
    one, two = tmp_path / "one", tmp_path / "two"
    with made.room(6 << 20, one, quota) as fits:
        assert fits
        with made.room(6 << 20, two, quota) as other:
            assert not other
        one.mkdir()
        (one / "half").write_bytes(os.urandom(3 << 20))  # less than was reserved
        with made.room(4 << 20, two, quota) as other:
            assert other
        (one / "more").write_bytes(os.urandom(5 << 20))  # more than was reserved
        with made.room(4 << 20, two, quota) as other:
            assert not other
        (one / "more").unlink()
    with pytest.raises(KeyError), made.room(6 << 20, two, quota) as fits:
        assert fits
        raise KeyError
    work = made.room(6 << 20, two, quota)
    assert work.__enter__()
    work.__exit__(GeneratorExit, GeneratorExit(), None)  # a page that was closed
    assert made.used() < 4 << 20  # nothing is reserved any more


@pytest.fixture
def public_page(tmp_path, monkeypatch):
    """A function that makes a public page's services, with these limits."""
    monkeypatch.setattr(Deployment, "check_spec", lambda self, spec: None)
    storage = Storage(tmp_path)

    def make(**limits) -> Services:
        return Services.of(Deployment.of(public=True, **limits), storage)

    return make


def test_a_save_that_finds_no_room_is_refused(public_page, tmp_path):
    bases = public_page(max_disk_bytes=1000).bases
    with (
        pytest.raises(BaseError, match="not enough disk space"),
        bases.disk_room(2000, tmp_path / "x"),
    ):
        pass
    with bases.disk_room(500, tmp_path / "x"):
        pass


def saving(services: Services, spec: str, dtype: str, folder: Path) -> list:
    """All updates of a download."""
    operation = Operation(spec, Plan.whole(6))
    return run(services, save(services, operation, "x", dtype, folder, str), ended)


def test_room_is_reckoned_in_the_dtype_that_is_asked_for(public_page, tiny_folder, tmp_path):
    """A float32 save of a bfloat16 base needs twice the size and disk space."""
    spec = str(tmp_path / "base")
    whole = Plan.whole(6)
    surgery.Base.open(str(tiny_folder("llama"))).save(whole, spec, dtype="bfloat16")
    base = surgery.Base.open(spec)
    assert base.dtype == "bfloat16"
    size = base.preview(whole).bytes
    assert saved_bytes(base, whole, "float32") == 2 * size
    assert saved_bytes(base, whole, None) == size
    used = Storage(tmp_path).used()  # the base itself
    for limits, words in (
        ({"max_model_bytes": size + size // 2}, "public page allows"),
        ({"max_disk_bytes": 3 * size + used}, "not enough disk space left"),
    ):
        services = public_page(**limits)
        folder = tmp_path / words.replace(" ", "-")
        *_, (status, *_) = saving(services, spec, "float32", folder)
        assert status["failed"] and words in status["text"]
        assert not folder.exists()
        *_, (status, *_) = saving(services, spec, "bfloat16", folder)
        assert not status["failed"], status
        (folder / "x.zip").unlink()


def test_of_two_saves_that_only_fit_one_by_one_the_second_is_told_so(
    public_page, tiny_folder, tmp_path, monkeypatch
):
    spec = str(tiny_folder("llama"))
    size = surgery.Base.open(spec).preview(Plan.whole(6)).bytes
    services = public_page(max_disk_bytes=4 * size - 1)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    begun, go_on = threading.Event(), threading.Event()
    inner = surgery.Base.save

    def slow(self, *args, **options):
        begun.set()
        assert go_on.wait(30)
        return inner(self, *args, **options)

    monkeypatch.setattr(surgery.Base, "save", slow)
    first = threading.Thread(target=lambda: list(saving(services, spec, AS_STORED, folders[0])))
    first.start()
    assert begun.wait(30)
    *_, (status, *_) = saving(services, spec, AS_STORED, folders[1])
    assert status["failed"] and "not enough disk space left" in status["text"]
    go_on.set()
    first.join(60)
    assert [path.name for path in folders[0].iterdir()] == ["x.zip"]
    *_, (status, *_) = saving(services, spec, AS_STORED, folders[0] / "..")
    assert not status["failed"], status  # one exists, and the other fits beside it


def test_what_a_model_takes_in_memory_is_bounded_too(public_page, tmp_path):
    """Weights stored in 8 bits take 16 once they are loaded."""
    tiny.model("llama").save_pretrained(tmp_path / "m")  # a model that nobody else has loaded
    spec = str(tmp_path / "m")
    bases = public_page().bases
    size = bases.get(spec).memory_bytes
    bases.deployment = Deployment.of(public=True, max_model_bytes=size - 1)
    with pytest.raises(BaseError, match="In memory the model's weights take"):
        bases.load(spec, lambda *_: None)


def test_models_are_loaded_one_after_the_other(tiny_folder, tmp_path, monkeypatch):
    """Memory that a load is about to use still counts as free for another one."""
    base = surgery.Base.open(str(tiny_folder("llama")))
    folders = [str(base.save(Plan.whole(6), tmp_path / name)) for name in ("one", "two")]
    loading, most = [], []
    inner = surgery.Base.load

    def slow(self, *args):
        loading.append(self)
        most.append(len(loading))
        time.sleep(0.8)  # longer than between two looks at whose turn it is
        loading.remove(self)
        return inner(self, *args)

    monkeypatch.setattr(surgery.Base, "load", slow)
    bases, message = Bases(), []
    threads = [
        threading.Thread(target=bases.load, args=(folder, lambda *w: message.append(w)))
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1]
    assert ("Waiting for another model to load", 0, 0) in message


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
from components.services import public_storage
made = public_storage.prepare()
from components.services.bases import Bases
from components.services.deployment import Deployment
bases = Bases(Deployment.of(public=True), made)
base = bases.load("org/llama", lambda *a: None)
from surgery.weight_stats import survey_base
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
    depth, folder, temporary, used, message, models = json.loads(done.stdout.splitlines()[-1])
    assert depth == 6 and used > 100_000 and "models--org--llama" in models
    assert temporary.startswith(folder) and "There is no model" in message
    assert sorted(owner.rglob("*")) == before  # nothing came into the owner's folders
    assert hub.tokens == {None}
    assert not Path(folder).exists()  # gone with the process
