"""Hub bases against a Hub in miniature: headers by range requests, errors in plain words.

Each case runs in a process of its own, since the Hub's client reads its settings when it starts.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import tiny
from hub_server import COMMIT, Hub

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    """One Hub for all cases."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def hub(server, tiny_folder):
    server.reset()
    server.repos["org/single"] = tiny_folder("llama")
    server.repos["org/sharded"] = tiny_folder("qwen3", max_shard_size="100KB")
    return server


@pytest.fixture
def run(hub, warm, tmp_path):
    """Run Python against the Hub; what it prints as JSON, or its last line of error. What it
    downloads is still there for the next run."""
    home = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}

    def run(code, **settings):
        code = "import json\nfrom surgery import *\n" + code
        done = warm.run("-c", code, env={**home, **settings})
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


OPEN = """
base = Base.open({spec!r})
preview = base.preview(Plan.whole(base.depth))
print(json.dumps([base.kind, base.name, base.depth, preview.parameters, preview.bytes,
                  base.source.revision, base.source.licence]))
"""


@pytest.mark.parametrize("repo", ["org/single", "org/sharded"])
def test_opening_reads_headers_by_range_requests(hub, run, repo):
    model = tiny.model("llama" if repo == "org/single" else "qwen3")
    expected = sum(p.numel() for p in model.parameters())
    facts = run(OPEN.format(spec=repo))
    assert facts == ["hub", repo, tiny.DEPTH, expected, 4 * expected, COMMIT, "mit"]
    fetched = [r for r in hub.requests if r[1].endswith(".safetensors") and r[0] == "GET"]
    assert fetched and all(wanted for _, _, wanted in fetched)


@pytest.mark.parametrize("repo", ["org/single", "org/sharded"])
def test_weights_come_on_demand_and_then_no_network_is_needed(hub, run, repo):
    code = f"""
updates = []
base = Base.open({repo!r})
base.load(lambda what, done, total: updates.append((what, done, total)))
patient = base.operate(Plan.parse("0:2, 4:6", base.depth))
out = base.save(patient.plan, {{out!r}})
text = "".join(patient.stream("abc", max_new_tokens=4, greedy=True))
print(json.dumps([base.preview(patient.plan).parameters, text, len(updates)]))
"""
    with tempfile.TemporaryDirectory() as folder:
        first = run(code.format(out=f"{folder}/a"))
        assert isinstance(first, list), first
        assert first[2] > 0
        before = len(hub.requests)
        again = run(code.format(out=f"{folder}/b"))
        assert again[:2] == first[:2]
        assert len(hub.requests) == before
        offline = run(code.format(out=f"{folder}/c"), HF_HUB_OFFLINE="1")
        assert offline[:2] == first[:2]
    assert not [path for _, path, _ in hub.requests if path.endswith((".bin", ".py"))]


def test_a_revision(run):
    assert run(OPEN.format(spec="org/single@main"))[5] == COMMIT
    assert "no revision “v9”" in run(OPEN.format(spec="org/single@v9"))


def test_an_unknown_model(run):
    assert "no model “org/nothing” on the Hub, or it is private" in run(
        OPEN.format(spec="org/nothing")
    )


def test_a_gated_model(hub, run):
    hub.gated.add("org/single")
    assert "accept its terms" in run(OPEN.format(spec="org/single"))


def test_no_network(hub, run):
    hub.close()
    message = run(OPEN.format(spec="org/single"))
    assert "Hub can't be reached" in message
    assert "HF_HUB_OFFLINE" in run(OPEN.format(spec="org/single"), HF_HUB_OFFLINE="1")


def test_a_repository_of_pickles_or_adapters(hub, run, tmp_path):
    for name, files, message in (
        ("org/pickles", ["config.json", "pytorch_model.bin"], "pickles only"),
        ("org/adapter", ["adapter_config.json", "adapter_model.safetensors"], "LoRA adapter"),
        ("org/data", ["README.md"], "no config.json"),
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_text("{}")
        if "config.json" in files:
            shutil.copy(hub.repos["org/single"] / "config.json", folder)
        hub.repos[name] = folder
        assert message in run(OPEN.format(spec=name))


def test_an_adapter_beside_a_model(hub, run, tmp_path):
    """Whether the files are on the Hub or in its cache, where transformers finds it too."""
    folder = tmp_path / "adapted"
    shutil.copytree(hub.repos["org/single"], folder)
    hub.repos["org/adapted"] = folder
    (folder / "adapter_config.json").write_text("{}")
    message = "org/adapted has an adapter beside its model"
    assert message in run(OPEN.format(spec="org/adapted"))
    assert not [path for _, path, _ in hub.requests if "/resolve/" in path]
    fetch = "from huggingface_hub import snapshot_download as get; print(json.dumps(get({!r})))"
    assert "models--org--adapted" in run(fetch.format("org/adapted"))
    hub.close()
    assert message in run(OPEN.format(spec="org/adapted"), HF_HUB_OFFLINE="1")


def test_weights_that_are_not_read_are_not_passed_over(hub, run, tmp_path):
    """Neither on the Hub nor in its cache."""
    folder = tmp_path / "named"
    shutil.copytree(hub.repos["org/single"], folder)
    hub.repos["org/named"] = folder
    config = json.loads((folder / "config.json").read_text())
    config["transformers_weights"] = "other.safetensors"
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    message = "org/named has its weights in “other.safetensors”"
    assert message in run(OPEN.format(spec="org/named"))
    fetch = "from huggingface_hub import snapshot_download as get; print(json.dumps(get({!r})))"
    assert "models--org--named" in run(fetch.format("org/named"))
    hub.close()
    assert message in run(OPEN.format(spec="org/named"), HF_HUB_OFFLINE="1")


def test_an_adapter_from_the_hub(hub, run, tmp_path):
    """Two files of it are downloaded, and then no network is needed."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "lora"
    folder.mkdir()
    name = "base_model.model.model.layers.5.self_attn.o_proj.lora_{}.weight"
    halves = {
        name.format(half): torch.ones(shape) for half, shape in (("A", (2, 64)), ("B", (64, 2)))
    }
    save_file(halves, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "layers_to_transform": [5]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "training_args.bin").write_text("a pickle")
    hub.repos["org/lora"] = folder
    spec = f"org/single@main+org/lora@{COMMIT}"
    code = (
        f"base = Base.open({spec!r}); base.save(Plan.whole(6), {str(tmp_path / 'out')!r});"
        "print(json.dumps([base.kind, base.name, base.pinned_id]))"
    )
    found = ["adapter", "org/single+org/lora", f"org/single@{COMMIT}+org/lora@{COMMIT}"]
    assert run(code) == found
    fetched = {path for method, path, _ in hub.requests if method == "GET" and "org/lora/" in path}
    assert {path.rpartition("/")[2] for path in fetched if "/resolve/" in path} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert "base_model:\n- org/single\n- org/lora\n" in (tmp_path / "out" / "README.md").read_text()
    assert "is a model, not an adapter" in run(OPEN.format(spec=f"{folder}+org/single"))
    hub.close()
    shutil.rmtree(tmp_path / "out")
    assert run(code, HF_HUB_OFFLINE="1") == found


BESIDE = ["tekken.json", "bpe.codes", "source.spm", "LICENSE", "USE_POLICY.md", "modules.json"]
BESIDE += ["1_Pooling/config.json", "additional_chat_templates/tool.jinja", "an odd [name].json"]
NOT_BESIDE = ["pytorch_model.bin", "modeling.py", "onnx/config.json", "logo.png", "x/y/z.json"]


@pytest.mark.parametrize("plan", ["0, 5", "0:6, 5"])
def test_what_belongs_to_a_model_comes_from_the_hub_too(hub, run, tmp_path, plan):
    """By range requests (some layers are left out) and by downloading all."""
    folder = tmp_path / "full"
    shutil.copytree(hub.repos["org/single"], folder)
    for name in (*BESIDE, *NOT_BESIDE, *(f"more{i:04}.json" for i in range(300))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"this is {name}")
    hub.repos["org/full"] = folder
    out = tmp_path / "out"
    run(SAVE.format(spec="org/full", plan=plan, out=str(out)))
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert {*BESIDE} <= files and not {*NOT_BESIDE} & files and len(files) < 120
    fetched = {path for _, path, _ in hub.requests if "/resolve/" in path}
    assert not [path for path in fetched if path.endswith((".py", ".bin", ".png"))]
    assert len(fetched) < 120


def test_a_broken_header_on_the_hub(hub, run, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(hub.repos["org/single"], folder)
    os.truncate(folder / "model.safetensors", 3000)
    hub.repos["org/broken"] = folder
    assert "model.safetensors is broken" in run(OPEN.format(spec="org/broken"))


def test_a_line_that_goes_dead(hub, run):
    """The download fails with a message, and the next one gets there."""
    hub.cut_after = 20_000
    load = "b = Base.open('org/single'); b.load(); print(json.dumps(b.is_loaded))"
    message = run(load, HF_HUB_DOWNLOAD_TIMEOUT="1", HF_HUB_ETAG_TIMEOUT="1")
    assert isinstance(message, str) and message.startswith("surgery.errors.BaseError")
    hub.cut_after = None
    assert run(load) is True


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("drops", "Hub can't be reached"),
        ("loops", "Hub can't be reached"),
        ("500", "The Hub refused org/single: Server error '500 Internal Server Error'"),
        ("html", "Another server answers"),
        ("ignores ranges", "does not serve parts of files"),
        ("sends another range", "does not serve parts of files"),
        ("lies about ranges", "model.safetensors is broken"),
    ],
)
def test_a_hub_that_misbehaves(hub, run, fault, message):
    hub.fault = fault
    assert message in run(OPEN.format(spec="org/single"))


def test_files_that_lie_elsewhere(hub, run):
    """As the real Hub's do: large files are redirected to a store."""
    hub.fault = "redirects"
    assert run(OPEN.format(spec="org/single"))[0] == "hub"
    assert [path for _, path, wanted in hub.requests if wanted and path.startswith("/cdn/")]


SAVE = """
base = Base.open({spec!r})
plan = Plan.parse({plan!r}, base.depth)
out = base.save(plan, {out!r})
print(json.dumps(sorted(path.name for path in out.iterdir())))
"""


def same_weights(one: Path, other: Path) -> bool:
    files = sorted(path.name for path in one.glob("*.safetensors"))
    assert files
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


def local(folder: Path, plan: str, out: Path) -> Path:
    from surgery import Base, Plan

    base = Base.open(str(folder))
    return base.save(Plan.parse(plan, base.depth), out)


@pytest.mark.parametrize("spec", ["org/single", "org/sharded"])
def test_a_save_that_leaves_layers_out_fetches_only_the_others(hub, run, tmp_path, spec):
    out, plan = tmp_path / "out", "0, 5, 5@identity"
    files = run(SAVE.format(spec=spec, plan=plan, out=str(out)))
    assert {"config.json", "tokenizer.json", "recipe.yaml", "README.md"} <= set(files)
    # The names of a shard's tensors follow from their order, which is that of the base's files.
    assert same_weights(out, local(hub.repos[spec], plan, tmp_path / "local"))
    stored = [p.stat().st_size for p in hub.repos[spec].glob("*.safetensors")]
    asked = 0
    for method, path, part in hub.requests:
        if path.endswith(".safetensors") and method == "GET":
            start, end = part.removeprefix("bytes=").split("-")
            if end != "99999":  # the headers
                asked += int(end) + 1 - int(start)
    # A third of the layers, and what lies outside of them; the copy is fetched again.
    assert 0 < asked < 0.75 * sum(stored)


def test_tied_tensors_that_differ_are_found_by_range_requests_too(hub, run, tmp_path):
    """As in a local folder. transformers would not tie them, whatever the config says."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "odd"
    shutil.copytree(hub.repos["org/single"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    hub.repos["org/odd"] = folder
    code = SAVE.format(spec="org/odd", plan="0:4", out=str(tmp_path / "out"))
    message = "are tied by the config and differ in the checkpoint"
    assert message in run(code) and not (tmp_path / "out").exists()
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    hub.repos["org/even"] = folder
    assert "config.json" in run(code.replace("org/odd", "org/even"))


@pytest.mark.parametrize("added", [0, 50])
def test_a_resized_save_fetches_the_rows_that_it_keeps(hub, run, tmp_path, added):
    import tiny

    from surgery import Base, Plan, resize_embeddings

    home = tmp_path / "home"
    tiny.model("llama").save_pretrained(home)
    words = tiny.tokenizer()
    words.add_tokens([f"<extra {i}>" for i in range(added)])
    words.save_pretrained(home)
    hub.repos["org/padded"] = home
    out, code = tmp_path / "out", SAVE.replace("base.save", "resize_embeddings(base).save")
    run(code.format(spec="org/padded", plan="0:4", out=str(out)))
    assert (out / "resized_embeddings.json").is_file()
    made, plan = resize_embeddings(Base.open(str(home))), Plan.parse("0:4", 6)
    assert same_weights(out, made.save(plan, tmp_path / "local"))


def test_a_save_of_everything_downloads_for_the_next_time(hub, run, tmp_path):
    run(SAVE.format(spec="org/single", plan="0:6, 5", out=str(tmp_path / "out")))
    whole = [path for method, path, part in hub.requests if method == "GET" and not part]
    assert any(path.endswith("model.safetensors") for path in whole)
    assert same_weights(tmp_path / "out", local(hub.repos["org/single"], "0:6, 5", tmp_path / "b"))


def test_a_line_that_breaks_in_mid_save(hub, run, tmp_path):
    hub.cut_parts = [30_000, 10]  # bytes of the next parts of weights, then the line goes dead
    code = "import surgery.sources.range_reader as parts; parts.PATIENCE = (0, 0)\n" + SAVE
    run(code.format(spec="org/single", plan="0, 5", out=str(tmp_path / "out")))
    assert not hub.cut_parts
    assert same_weights(tmp_path / "out", local(hub.repos["org/single"], "0, 5", tmp_path / "b"))


def test_a_repository_can_not_fill_the_disk_with_what_is_no_weights(run, hub):
    hub.claimed["tokenizer.json"] = 10**12
    message = run(OPEN.format(spec="org/single"))
    assert "tokenizer.json in org/single is 1,000,000 MB" in message and "not opened" in message
    assert not any("/resolve/" in path for _, path, _ in hub.requests)
