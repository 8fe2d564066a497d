"""Hub bases against a Hub in miniature: headers by range requests, errors in plain words.

Cases run in processes of their own, since the Hub's client reads its settings when it starts.
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
def opened(spec):
    base = Base.open(spec)
    preview = base.preview(Plan.whole(base.depth))
    return [base.kind, base.name, base.depth, preview.parameters, preview.bytes,
            base.source.revision, base.source.licence]

def tried(spec):
    try:
        return opened(spec)
    except SurgeryError as error:
        return str(error)

"""


@pytest.fixture
def tried(run):
    """What opening each of these gives in one process: facts of the model, or the message."""

    def tried(*specs, **settings):
        found = run(f"{OPEN}print(json.dumps([tried(spec) for spec in {specs!r}]))", **settings)
        assert isinstance(found, list), found
        assert not [one for one in found if "\n" in one]
        return found

    return tried


def test_opening_reads_headers_by_range_requests(hub, tried):
    repos = {"org/single": "llama", "org/sharded": "qwen3"}
    for facts, (repo, family) in zip(tried(*repos), repos.items(), strict=True):
        expected = sum(p.numel() for p in tiny.model(family).parameters())
        assert facts == ["hub", repo, tiny.DEPTH, expected, 4 * expected, COMMIT, "mit"]
        weights = [r for r in hub.requests if f"/{repo}/" in r[1] and r[1].endswith(".safetensors")]
        fetched = [r for r in weights if r[0] == "GET"]
        assert fetched and all(wanted for _, _, wanted in fetched)


def test_weights_come_on_demand_and_then_no_network_is_needed(hub, run):
    code = """
found = []
for repo in ("org/single", "org/sharded"):
    updates = []
    base = Base.open(repo)
    base.load(lambda what, done, total: updates.append((what, done, total)))
    patient = base.operate(Plan.parse("0:2, 4:6", base.depth))
    base.save(patient.plan, {out!r} + repo.replace("/", "-"))
    text = "".join(patient.stream("abc", max_new_tokens=4, greedy=True))
    found.append([base.preview(patient.plan).parameters, text, len(updates)])
print(json.dumps(found))
"""
    with tempfile.TemporaryDirectory() as folder:
        first = run(code.format(out=f"{folder}/a"))
        assert isinstance(first, list), first
        assert all(updates > 0 for *_, updates in first)
        before = len(hub.requests)
        again = run(code.format(out=f"{folder}/b"))
        assert [one[:2] for one in again] == [one[:2] for one in first]
        assert len(hub.requests) == before
        offline = run(code.format(out=f"{folder}/c"), HF_HUB_OFFLINE="1")
        assert [one[:2] for one in offline] == [one[:2] for one in first]
    assert not [path for _, path, _ in hub.requests if path.endswith((".bin", ".py"))]


def test_what_can_not_be_opened_is_said(hub, tried, tmp_path):
    """No such revision or model, a gated one, pickles, adapters, data, a broken header."""
    single = hub.repos["org/single"]
    for name, files in (
        ("org/pickles", ["config.json", "pytorch_model.bin"]),
        ("org/adapter", ["adapter_config.json", "adapter_model.safetensors"]),
        ("org/data", ["README.md"]),
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_text("{}")
        if "config.json" in files:
            shutil.copy(single / "config.json", folder)
        hub.repos[name] = folder
    hub.repos["org/broken"] = shutil.copytree(single, tmp_path / "broken")
    os.truncate(tmp_path / "broken" / "model.safetensors", 3000)
    hub.repos["org/gated"] = single
    hub.gated.add("org/gated")
    messages = {
        "org/single@v9": "no revision “v9”",
        "org/nothing": "no model “org/nothing” on the Hub, or it is private",
        "org/gated": "accept its terms",
        "org/pickles": "pickles only",
        "org/adapter": "LoRA adapter",
        "org/data": "no config.json",
        "org/broken": "model.safetensors is broken",
        f"{single}+org/single": "is a model, not an adapter",
    }
    *refused, by_branch = tried(*messages, "org/single@main")
    for found, message in zip(refused, messages.values(), strict=True):
        assert isinstance(found, str) and message in found
    assert by_branch[5] == COMMIT


def test_no_network(hub, tried):
    hub.close()
    assert "Hub can't be reached" in tried("org/single")[0]
    assert "HF_HUB_OFFLINE" in tried("org/single", HF_HUB_OFFLINE="1")[0]


def test_what_lies_beside_a_model_is_not_passed_over(hub, run, tried, tmp_path):
    """An adapter, and weights that are not read: whether the files are on the Hub or in its cache,
    where transformers finds them too."""
    for name in ("adapted", "named"):
        hub.repos[f"org/{name}"] = shutil.copytree(hub.repos["org/single"], tmp_path / name)
    (tmp_path / "adapted" / "adapter_config.json").write_text("{}")
    config = json.loads((tmp_path / "named" / "config.json").read_text())
    config["transformers_weights"] = "other.safetensors"
    (tmp_path / "named" / "config.json").write_text(json.dumps(config))
    shutil.copy(tmp_path / "named" / "model.safetensors", tmp_path / "named" / "other.safetensors")
    messages = {
        "org/adapted": "org/adapted has an adapter beside its model",
        "org/named": "org/named has its weights in “other.safetensors”",
    }

    def refused(**settings):
        found = tried(*messages, **settings)
        return all(word in one for word, one in zip(messages.values(), found, strict=True))

    assert refused()
    assert not [p for _, p, _ in hub.requests if "/resolve/" in p and "org/adapted" in p]
    fetch = "from huggingface_hub import snapshot_download as get\n"
    folders = run(f"{fetch}print(json.dumps([get(repo) for repo in {[*messages]!r}]))")
    assert "models--org--adapted" in folders[0] and "models--org--named" in folders[1]
    hub.close()
    assert refused(HF_HUB_OFFLINE="1")


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
    hub.close()
    shutil.rmtree(tmp_path / "out")
    assert run(code, HF_HUB_OFFLINE="1") == found


BESIDE = ["tekken.json", "bpe.codes", "source.spm", "LICENSE", "USE_POLICY.md", "modules.json"]
BESIDE += ["1_Pooling/config.json", "additional_chat_templates/tool.jinja", "an odd [name].json"]
NOT_BESIDE = ["pytorch_model.bin", "modeling.py", "onnx/config.json", "logo.png", "x/y/z.json"]


def test_what_belongs_to_a_model_comes_from_the_hub_too(hub, run, tmp_path):
    """By range requests (some layers are left out) and by downloading all."""
    folder = tmp_path / "full"
    shutil.copytree(hub.repos["org/single"], folder)
    for name in (*BESIDE, *NOT_BESIDE, *(f"more{i:04}.json" for i in range(300))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"this is {name}")
    # Two names of it, so that neither finds in the cache what the other has fetched.
    plans = {"org/some": "0, 5", "org/full": "0:6, 5"}
    hub.repos |= dict.fromkeys(plans, folder)
    saves = [(repo, plan, str(tmp_path / repo)) for repo, plan in plans.items()]
    run(saving(*saves))
    for repo, _, place in saves:
        out = Path(place)
        files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
        assert {*BESIDE} <= files and not {*NOT_BESIDE} & files and len(files) < 120
        fetched = {path for _, path, _ in hub.requests if f"/{repo}/resolve/" in path}
        assert fetched and not [p for p in fetched if p.endswith((".py", ".bin", ".png"))]
        assert len(fetched) < 120


def test_a_line_that_goes_dead(hub, run):
    """The download fails with a message, and the next one gets there."""
    hub.cut_after = 20_000
    load = "b = Base.open('org/single'); b.load(); print(json.dumps(b.is_loaded))"
    at_once = "import time; time.sleep = lambda seconds: None\n"  # between the client's attempts
    message = run(at_once + load, HF_HUB_DOWNLOAD_TIMEOUT="1", HF_HUB_ETAG_TIMEOUT="1")
    assert isinstance(message, str) and message.startswith("surgery.errors.BaseError")
    hub.cut_after = None
    assert run(load) is True


def test_a_hub_that_misbehaves(hub, tried):
    messages = {
        "drops": "Hub can't be reached",
        "loops": "Hub can't be reached",
        "500": "The Hub refused org/500: Server error '500 Internal Server Error'",
        "html": "Another server answers",
        "ignores ranges": "does not serve parts of files",
        "sends another range": "does not serve parts of files",
        "lies about ranges": "model.safetensors is broken",
    }
    repos = {f"org/{fault.replace(' ', '-')}": fault for fault in messages}
    hub.faults |= repos
    hub.repos |= dict.fromkeys(repos, hub.repos["org/single"])
    for fault, found in zip(messages, tried(*repos), strict=True):
        assert isinstance(found, str) and messages[fault] in found, fault


def test_files_that_lie_elsewhere(hub, tried):
    """As the real Hub's do: large files are redirected to a store."""
    hub.faults["org/single"] = "redirects"
    assert tried("org/single")[0][0] == "hub"
    assert [path for _, path, wanted in hub.requests if wanted and path.startswith("/cdn/")]


SAVE = """
def save(spec, plan, out):
    base = Base.open(spec)
    out = base.save(Plan.parse(plan, base.depth), out)
    return sorted(path.name for path in out.iterdir())

"""


def saving(*saves: tuple[str, str, str]) -> str:
    """Code that makes saves, each a base, a plan and a folder, and prints the names of files."""
    return f"{SAVE}print(json.dumps([save(*each) for each in {saves!r}]))"


def same_weights(one: Path, other: Path) -> bool:
    files = sorted(path.name for path in one.glob("*.safetensors"))
    assert files
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


def local(folder: Path, plan: str, out: Path) -> Path:
    from surgery import Base, Plan

    base = Base.open(str(folder))
    return base.save(Plan.parse(plan, base.depth), out)


def test_a_save_that_leaves_layers_out_fetches_only_the_others(hub, run, tmp_path):
    plan, repos = "0, 5, 5@identity", ("org/single", "org/sharded")
    found = run(saving(*((repo, plan, str(tmp_path / repo)) for repo in repos)))
    for repo, files in zip(repos, found, strict=True):
        assert {"config.json", "tokenizer.json", "recipe.yaml", "README.md"} <= set(files)
        # The names of a shard's tensors follow from their order, which is that of the base's files.
        home = hub.repos[repo]
        assert same_weights(tmp_path / repo, local(home, plan, tmp_path / "local" / repo))
        stored = [p.stat().st_size for p in home.glob("*.safetensors")]
        asked = 0
        for method, path, part in hub.requests:
            if f"/{repo}/" in path and path.endswith(".safetensors") and method == "GET":
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
    hub.repos["org/even"] = even = shutil.copytree(folder, tmp_path / "even")
    tensors = load_file(even / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, even / "model.safetensors", {"format": "pt"})
    out = str(tmp_path / "out")
    code = f"""{SAVE}
try:
    save("org/odd", "0:4", {out!r})
except SurgeryError as error:
    print(json.dumps([str(error), save("org/even", "0:4", {out + "-even"!r})]))
"""
    message, files = run(code)
    assert "are tied by the config and differ in the checkpoint" in message
    assert not (tmp_path / "out").exists() and "config.json" in files


def test_a_resized_save_fetches_the_rows_that_it_keeps(hub, run, tmp_path):
    from surgery import Base, Plan, resize_embeddings

    repos = {"org/cropped": 0, "org/grown": 50}  # tokens that were added
    for repo, added in repos.items():
        hub.repos[repo] = home = shutil.copytree(hub.repos["org/single"], tmp_path / "home" / repo)
        words = tiny.tokenizer()
        words.add_tokens([f"<extra {i}>" for i in range(added)])
        words.save_pretrained(home)
    saves = [(repo, "0:4", str(tmp_path / repo)) for repo in repos]
    run(saving(*saves).replace("base.save", "resize_embeddings(base).save"))
    for repo in repos:
        assert (tmp_path / repo / "resized_embeddings.json").is_file()
        made = resize_embeddings(Base.open(str(hub.repos[repo])))
        expected = made.save(Plan.parse("0:4", 6), tmp_path / "local" / repo)
        assert same_weights(tmp_path / repo, expected)


def test_a_save_of_everything_downloads_for_the_next_time(hub, run, tmp_path):
    run(saving(("org/single", "0:6, 5", str(tmp_path / "out"))))
    whole = [path for method, path, part in hub.requests if method == "GET" and not part]
    assert any(path.endswith("model.safetensors") for path in whole)
    assert same_weights(tmp_path / "out", local(hub.repos["org/single"], "0:6, 5", tmp_path / "b"))


def test_a_line_that_breaks_in_mid_save(hub, run, tmp_path):
    hub.cut_parts = [30_000, 10]  # bytes of the next parts of weights, then the line goes dead
    code = "import surgery.sources.range_reader as parts; parts.PATIENCE = (0, 0)\n"
    run(code + saving(("org/single", "0, 5", str(tmp_path / "out"))))
    assert not hub.cut_parts
    assert same_weights(tmp_path / "out", local(hub.repos["org/single"], "0, 5", tmp_path / "b"))


def test_a_repository_can_not_fill_the_disk_with_what_is_no_weights(tried, hub):
    hub.claimed["tokenizer.json"] = 10**12
    (message,) = tried("org/single")
    assert "tokenizer.json in org/single is 1,000,000 MB" in message and "not opened" in message
    assert not any("/resolve/" in path for _, path, _ in hub.requests)
