"""A remembered base says what the opened one says, until a file or a version changes."""

import json
import os
import shutil
import subprocess
import sys

import peft
import pytest
import tiny
import torch
from zoo import build

from surgery import Base, Plan, known_base
from surgery.cli.main import main
from surgery.compute import contexts

PLAN = "0:2, 4:6, 5"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma3", "gpt2"])
def test_a_remembered_base_answers_as_the_opened_one(tiny_folder, family):
    folder = str(tiny_folder(family))
    assert known_base.recall(folder) is None
    base = Base.open(folder)
    known_base.remember(folder, base)
    known = known_base.recall(folder)
    assert known == known_base.KnownBase.of(base)
    for plan in (Plan.whole(base.depth), Plan.parse(PLAN, base.depth)):
        assert known.preview(plan) == base.preview(plan)
    assert type(known.counts.outside.parameters) is type(base.counts.outside.parameters)


def test_so_does_one_in_a_folder_whose_name_is_not_utf_8(tiny_folder, tmp_path):
    folder = str(shutil.copytree(tiny_folder("llama"), tmp_path / os.fsdecode(b"mod\xffel")))
    base = Base.open(folder)
    known_base.remember(folder, base)
    assert known_base.recall(folder) == known_base.KnownBase.of(base)


def test_nothing_is_known_in_the_home_of_no_user(capsys):
    spec = "~no-such-user-here/model"
    assert known_base.recall(spec) is None
    assert main(["inspect", spec]) == 1
    assert "is not a path on this machine" in capsys.readouterr().err


def test_so_does_one_whose_layers_share_tensors(tmp_path):
    build.model("zamba").save_pretrained(tmp_path / "zamba")
    base = Base.open(str(tmp_path / "zamba"))
    assert base.stored_bytes.passed_on
    known_base.remember(str(tmp_path / "zamba"), base)
    assert known_base.recall(str(tmp_path / "zamba")) == known_base.KnownBase.of(base)


def test_so_does_one_with_an_adapter(tiny_folder, tmp_path, monkeypatch):
    folder, adapter = str(tiny_folder("llama")), tmp_path / "adapter"
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(tiny.model("llama"), config).save_pretrained(adapter)
    spec = f"{folder}+{adapter}"
    base = Base.open(spec)
    known_base.remember(spec, base)
    assert known_base.recall(spec) == known_base.KnownBase.of(base)
    monkeypatch.chdir(tmp_path)
    assert known_base.recall(f"{folder}+./adapter") == known_base.recall(spec)
    assert known_base.recall(f"{folder}+other/adapter") is None
    os.utime(adapter / "adapter_model.safetensors", (1, 1))
    assert known_base.recall(spec) is None


def _copy(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_folder("llama").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    known_base.remember(str(folder), Base.open(str(folder)))
    assert known_base.recall(str(folder))
    return folder


def _edit(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))


def _touch(folder):
    os.utime(folder / "model.safetensors", (1, 1))


def _remove(folder):
    (folder / "tokenizer.json").unlink()


def _add(folder):
    (folder / "chat_template.jinja").write_text("{{ messages }}")


@pytest.mark.parametrize("change", [_edit, _touch, _remove, _add])
def test_changed_files_make_it_unknown(tiny_folder, tmp_path, change):
    folder = _copy(tiny_folder, tmp_path)
    change(folder)
    assert known_base.recall(str(folder)) is None


def test_a_link_that_leads_elsewhere_names_another_base(tiny_folder, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(tiny_folder("llama"))
    known_base.remember(str(link), Base.open(str(link)))
    known = known_base.recall(str(link))
    assert known and known == known_base.recall(str(tiny_folder("llama")))
    link.unlink()
    link.symlink_to(tiny_folder("gpt2"))
    assert known_base.recall(str(link)) is None


@pytest.mark.parametrize("change", [_edit, _touch])
def test_files_that_changed_since_it_was_opened_are_not_remembered(tiny_folder, tmp_path, change):
    """What is described isn't what is there now."""
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "model")
    base = Base.open(str(folder))
    change(folder)
    known_base.remember(str(folder), base)
    assert known_base.recall(str(folder)) is None


def test_another_version_makes_it_unknown(tiny_folder, tmp_path, monkeypatch):
    folder = _copy(tiny_folder, tmp_path)
    monkeypatch.setattr(known_base, "__version__", "0.0.1")
    assert known_base.recall(str(folder)) is None


def test_other_accelerators_make_it_unknown(tiny_folder, tmp_path, monkeypatch):
    folder = _copy(tiny_folder, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert known_base.recall(str(folder)) is None


def test_an_installed_package_makes_it_unknown(tiny_folder, tmp_path, monkeypatch):
    """Whether a base takes images can depend on one that its processor needs."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    assert (known_base._packages() / "transformers").is_dir()
    monkeypatch.setattr(known_base, "_packages", lambda: packages)
    folder = _copy(tiny_folder, tmp_path)
    os.utime(packages, (1, 1))
    assert known_base.recall(str(folder)) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"files": {}, "value": {"conditions": [], "base": {}}}']
)
def test_a_damaged_record_makes_it_unknown(tiny_folder, tmp_path, content):
    folder = _copy(tiny_folder, tmp_path)
    (record,) = (tmp_path / "cache" / "known-bases").glob("*.json")
    record.write_text(content)
    assert known_base.recall(str(folder)) is None


def test_the_dtype_of_computation_is_known_once_it_is_measured(tmp_path, monkeypatch):
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    monkeypatch.setattr(contexts, "_measured_gain", lambda stored: 3.0)
    contexts.float32_gain.cache_clear()
    spec = str(tmp_path / "half")
    known = known_base.remember(spec, Base.open(spec))
    contexts.float32_gain.cache_clear()
    assert known_base.recall(spec) == known and known.compute_dtype == "float32"
    for record in (tmp_path / "cache" / "float32-gain").iterdir():
        record.unlink()
    assert known_base.recall(spec).compute_dtype is None


def test_a_known_base_is_previewed_without_torch(tiny_folder):
    folder = str(tiny_folder("llama"))
    known_base.remember(folder, Base.open(folder))
    code = (
        "import sys; from surgery.cli.main import main; "
        f"status = main(['preview', {folder!r}, {PLAN!r}]) or main(['inspect', {folder!r}]); "
        "sys.exit(status or 'torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout and "stored and computed in float32" in done.stdout
