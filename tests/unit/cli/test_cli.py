"""The command line: in this process where that is the same, as a real one where it is not."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch

from surgery import Base, Plan, presets
from surgery.cli import interrupts, main
from surgery.cli.commands import COMMANDS, load
from surgery.compute import choice

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "surgery"]


@pytest.fixture
def folder(tiny_folder):
    return str(tiny_folder("llama"))


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line here: (exit status, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        status = main.main([str(a) for a in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def start(warm):
    """Start it as a process of its own."""
    return partial(warm.start, "-m", "surgery")


# ---------------------------------------------------------------- what it says


def test_inspect_in_json(run, folder):
    status, out, err = run("inspect", folder, "--json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    assert facts["depth"] == facts["layers"] == tiny.DEPTH
    assert (facts["kind"], facts["architecture"], facts["dtype"]) == ("folder", "Llama", "float32")
    assert facts["compute_dtype"] == "float32"
    assert facts["parameters"] == sum(p.numel() for p in tiny.model("llama").parameters())
    assert facts["bytes"] == 4 * facts["parameters"] == 4 * sum(facts["by_component"].values())
    assert facts["has_tokenizer"] is True and facts["has_chat_template"] is False


def test_preview_in_json(run, folder):
    status, out, err = run("preview", folder, "0:2, 4:6", "--json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    assert (facts["plan"], facts["changes"]) == ("0:2, 4:6", "2 dropped")
    before = facts["before"]
    assert (facts["layers"], before["layers"]) == (4, 6)
    for key in ("parameters", "bytes", "kv_bytes_per_token", "flops_per_token"):
        assert 0 < facts[key] < before[key]
    assert facts["kv_bytes_per_token"] * 6 == before["kv_bytes_per_token"] * 4
    assert facts["parameters"] == sum(facts["by_component"].values())


def test_what_a_recipe_asks_for_in_vain_is_said(run, folder, tmp_path):
    recipe = tmp_path / "plan.yaml"
    text = "slices: [{sources: [{model: x, layer_range: [0, 2]}]}]\n"
    recipe.write_text(text + "parameters: {int8_mask: true, normalize: true}\n")
    for command in (
        ("preview", folder, f"@{recipe}"),
        ("save", folder, f"@{recipe}", tmp_path / "o"),
    ):
        status, out, err = run(*command)
        assert status == 0 and out
        assert err.count("int8_mask, normalize") == 1 and "no effect in passthrough" in err
    recipe.write_text(text + "dtype: bfloat\n")
    for command in (
        ("preview", folder, f"@{recipe}"),
        ("save", folder, f"@{recipe}", tmp_path / "p"),
    ):
        status, _, err = run(*command)
        assert status == 1 and "“bfloat” is not a supported dtype" in err
    assert not (tmp_path / "p").exists()


def test_tables_say_the_same_as_json(run, folder):
    facts = json.loads(run("preview", folder, "0:4, 2:6", "--json")[1])
    status, out, err = run("preview", folder, "0:4, 2:6")
    assert (status, err) == (0, "")
    for number in (facts["parameters"], facts["before"]["parameters"]):
        assert f"{number:,}" in out
    assert "0:4, 2:6  (2 repeated)" in out and "+33.3 %" in out
    assert max(map(len, out.splitlines())) <= 80
    facts = json.loads(run("inspect", folder, "--json")[1])
    out = run("inspect", folder)[1]
    assert f"{facts['parameters']:,}" in out and "without a chat template" in out


def test_presets_are_plans_too(run, folder):
    facts = json.loads(run("preview", folder, "drop-middle n=2", "--json")[1])
    assert facts["plan"] == "0:2, 4:6"


def test_layers_that_differ_are_listed(run, tiny_folder):
    folder = tiny_folder("gemma3_text")
    assert json.loads(run("inspect", folder, "--json")[1])["layer_kinds"][1:3] == [
        "sliding",
        "full",
    ]
    assert re.search(r"layer 2 +full", run("inspect", folder)[1])


def test_generate(run, folder):
    arguments = ["generate", folder, "0:2, 4:6", "--prompt", "abc", "--max-new-tokens", 8]
    status, out, err = run(*arguments, "--greedy")
    assert status == 0 and out.endswith("\n")
    assert re.fullmatch(r"[1-8] tokens, .*tokens/s, first after \d+\.\d\d s\n", err)
    assert run(*arguments, "--greedy")[1] == out
    wild = [*arguments, "--temperature", 5]
    texts = [run(*wild, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_which_layers_each_token_needs(run, folder):
    arguments = ["tokens", folder, "0:4, 3:6", "--prompt", "abc", "--answer", "de"]
    facts = json.loads(run(*arguments, "--json")[1])
    assert facts["sources"] == [0, 1, 2, 3, 3, 4, 5]
    assert [token["text"] for token in facts["tokens"]] == ["d", "e"]
    costs = facts["tokens"][1]["costs"]
    status, out, _ = run(*arguments)
    row = next(line for line in out.splitlines() if line.startswith("“e”"))
    most = max(range(7), key=costs.__getitem__)
    source = facts["sources"][most]
    named = f"{source}" if source == most else f"{source}@{most}"
    assert status == 0 and f" {named} {costs[most]:+.2f} " in row
    assert max(map(len, out.splitlines())) <= 80
    status, out, _ = run("tokens", folder, "--prompt", "abc", "--max-new-tokens", 3)  # the base
    assert status == 0 and "0:6  (unchanged)" in out


def test_the_compute_dtype_is_an_option(run, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "_chosen", None)
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    tiny.tokenizer().save_pretrained(tmp_path / "half")
    ask = ["scan", tmp_path / "half", "--limit", 100, "--score", "drop_one", "--json"]
    found = {}
    for dtype in ("stored", "float32"):
        status, out, _ = run(*ask, "--compute-dtype", dtype)
        assert status == 0 and Base.open(str(tmp_path / "half")).compute_dtype == (
            "float32" if dtype == "float32" else "bfloat16"
        )
        found[dtype] = json.loads(out)["perplexity"]
    assert found["stored"] != found["float32"]  # measured anew, not taken from the other's cache
    assert found["stored"] == pytest.approx(found["float32"], rel=0.01)


def test_save(run, folder, tmp_path):
    out = tmp_path / "out"
    status, message, err = run(
        "save", folder, "0:4, 2:6", out, "--dtype", "bfloat16", "--shard-size", "100KB"
    )
    assert (status, err) == (0, "")
    preview = json.loads(run("inspect", out, "--json")[1])
    assert (preview["layers"], preview["dtype"]) == (8, "bfloat16")
    files = list(out.iterdir())
    size = sum(path.stat().st_size for path in files)
    assert message == (
        f"{out}: 8 layers, {preview['parameters']:,} parameters, "
        f"{size / 1e6:,.1f} MB in {len(files)} files\n"
    )
    assert len(list(out.glob("*.safetensors"))) > 2
    status, message, _ = run("save", folder, "0:2", out, "--overwrite", "--json")
    listed = json.loads(message)
    assert (status, listed["folder"]) == (0, str(out))
    assert listed["files"] == {path.name: path.stat().st_size for path in out.iterdir()}


# ---------------------------------------------------------------- help


def test_help_is_readable_at_80_columns(run):
    for command in ((), ("inspect",), ("preview",), ("generate",), ("save",)):
        status, out, err = run(*command, "--help")
        assert (status, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        assert run(*command, "-h")[1] == out
        assert "[b]" not in out and "<bool>" not in out
    assert run()[1] == run("--help")[1]


def test_help_lists_every_command_without_importing_it():
    code = (
        "import sys; from surgery.cli.main import main; status = main(['--help']); "
        "sys.exit(status or 10 * any(m in sys.modules for m in ('numpy', 'pydantic')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = done.stdout.partition("Commands:")[2].split("\n")
    lines = [line.split(maxsplit=1) for line in listed if line]
    sentences = {name: re.match(r"[^.]+\S+", load(name).__doc__)[0] for name in COMMANDS}
    assert dict(lines) == sentences and [name for name, _ in lines] == list(COMMANDS)


def test_help_explains_bases_plans_and_presets(run):
    out = run("--help")[1]
    for word in ("bundled", "org/name@revision", "file.gguf", "config:", *presets.PRESETS):
        assert word in out
    for plan in re.findall(r'^    "(.+?)"  ', out, re.M):
        status, message, _ = run("preview", "bundled", plan, "--json")
        assert status == 0 and Plan.parse(json.loads(message)["plan"], 30) == Plan.parse(plan, 30)
    assert "preview" in out and "..." not in out.partition("Commands:")[2]  # nothing is cut off


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preview", "{base}", "0:7"], "“0:7” reaches past the last layer"),
        (["preview", "{base}", "slr m=2"], "There is no preset “slr”"),
        (["preview", "{base}", ""], "The plan is empty"),
        (["preview", "{base}", "@plan.yaml"], "plan.yaml can't be read: No such file"),
        (["preview", "{base}", "0:3\x1b[31m\n"], "is not a range"),
        (["inspect", "/no/such/place"], "There is no folder /no/such/place"),
        (["inspect", "/no/such\nplace\x1b[2J/"], "There is no folder"),
        (["inspect", "a b"], "neither a folder nor a Hub id"),
        (["inspect", "[bold]x[/bold]"], "“[bold]x[/bold]” is neither"),
        (["inspect", "bundled+org/one+./two"], "one is merged at a time"),
        (["inspect", "/" + "a" * 300], "File name too long"),
        (["inspect", "config:/dev/zero"], "/dev/zero is not a file"),
        (["inspect", "/\udce9"], "There is no folder"),
        (["generate", "{base}", "0:6", "--prompt", "x", "--temperature", "1e-300"], "0.01 to 100"),
        (["generate", "{base}", "0:6", "--prompt", "\udce9"], "write it in UTF-8"),
        (["generate", "{base}", "0:6", "--prompt", "a" * 300], "context holds 256"),
        (["generate", "{base}", "0:6", "--prompt", "x", "--chat"], "no chat template"),
        (["tokens", "{base}", "--prompt", "a", "--answer", ""], "it has no tokens"),
        (["tokens", "{base}", "--prompt", "a", "--with", "b=c"], "--with is for a plan"),
        (["weights", "{base}", "--with", "b=c"], "--with is for a plan"),
        (["weights", "{base}", "--union-vocabulary"], "--union-vocabulary is for a plan"),
        (["recipe", "{base}", "0:4", "--format", "peft", "--dtype", "float16"], "for mergekit's"),
        (["recipe", "{base}", "0:4", "--format", "python", "--dtype", "float16"], "for mergekit's"),
        (["tokens", "{base}", "--prompt", "a", "--answer", "b", "--chat"], "without --chat"),
        (["save", "{base}", "0:6", "{base}"], "exists already"),
        (["save", "{base}", "0:6@average", "{out}"], "the last layer has none"),
        (["save", "{base}", "0:6", "{out}", "--dtype", "int4"], "float32, float16, bfloat16"),
        (["save", "{base}", "0:6", "{out}", "--shard-size", "-1"], "5GB or 500MB"),
    ],
)
def test_an_error_is_one_plain_line(run, folder, tmp_path, arguments, message):
    filled = [a.format(base=folder, out=tmp_path / "out") for a in arguments]
    status, out, err = run(*filled)
    assert (status, out) == (1, "")
    assert err.startswith("Error: ") and message in err
    assert err.endswith("\n") and err[:-1].isprintable()  # so it has no line break either
    assert "should not" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["operate"], "No such command 'operate'"),
        (["inspect"], "Missing argument 'BASE'"),
        (["preview", "x"], "Missing argument 'PLAN'"),
        (["inspect", "x", "y"], "unexpected extra argument"),
        (["inspect", "x", "--nope"], "No such option"),
        (["generate", "x", "0:2"], "Missing option '--prompt'"),
        (["generate", "x", "0:2", "--prompt", "a", "--seed", "²"], "valid integer"),
        *(
            ([*command, "--compute-dtype", "half"], "not one of 'auto', 'float32', 'stored'")
            for command in (
                ["scan", "x"],
                ["suggest", "x"],
                ["compare", "x", "0:2"],
                ["generate", "x", "0:2", "--prompt", "a"],
                ["heal", "x", "0:2", "out"],
            )
        ),
    ],
)
def test_wrong_usage_is_told_apart(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err and "Try: python -m surgery" in err and "--help" in err


def test_a_bug_of_ours_is_one_line_too(run, monkeypatch, folder, tmp_path):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))  # where no base is remembered

    def broken(*args, **options):
        raise ZeroDivisionError("oops\nand more")

    monkeypatch.setattr("surgery.base.Base.open", broken)
    status, _, err = run("inspect", folder)
    assert (status, err.count("\n")) == (1, 1) and "ZeroDivisionError: oops and more" in err
    monkeypatch.setenv("SURGERY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("inspect", folder)


# ---------------------------------------------------------------- as a process


def test_the_bundled_model():
    command = [*COMMAND, "preview", "bundled", "0:22, 8:30", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["parameters"] == 184_076_352


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_save_that_is_stopped_leaves_nothing(start, tmp_path, how):
    process = start("save", "bundled", "0:30*4", tmp_path / "deep" / "out")
    while process.poll() is None and not list(
        tmp_path.glob("deep/.out.*.partial/new/*.safetensors")
    ):
        time.sleep(0.005)
    process.send_signal(how)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"Stopped.\n")
    assert [path.name for path in tmp_path.rglob("*")] == ["deep"]


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_python_drops_stops_a_command_at_its_next_report(warm, how):
    """Python drops what is raised in a destructor, so there the signal arrives."""
    code = f"""
import signal
from surgery.cli import interrupts
from surgery.cli.common import progress_bar
signal.signal(signal.{how}, signal.SIG_DFL)  # which may be ignored here
interrupts.handle()
class Dying:
    def __del__(self):
        signal.raise_signal(signal.{how})
with progress_bar() as report:
    report("Waiting", 0, 2)
    dying = Dying()
    del dying
    print("alive", flush=True)
    try:
        report("Waiting", 1, 2)
    except KeyboardInterrupt:
        print("stopped")
    report("Waiting", 2, 2)
"""
    done = warm.run("-c", code)
    assert done.stdout == "alive\nstopped\n" and done.returncode == 0, done.stderr
    assert "Exception ignored in: <function Dying.__del__" in done.stderr


def test_ctrl_c_and_a_closed_terminal_stay_ignored_in_the_background():
    ignored = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in (*ignored, signal.SIGTERM)}
    try:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        interrupts.handle()
        for number in ignored:
            assert signal.getsignal(number) is signal.SIG_IGN
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        interrupts.check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_text_that_is_stopped(start):
    process = start("generate", "bundled", "0:30", "--prompt", "Count: 1 2 3 4", "--greedy",
                    "--max-new-tokens", 4000)  # fmt: skip
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, b"Stopped.\n")


@pytest.mark.parametrize(
    ("redirection", "status", "message"),
    [
        ("| head -c 1 >&2; exit ${PIPESTATUS[0]}", 0, "{"),
        (">&- 2>&-", 0, ""),
        ("> /dev/full", 1, "Error: No space left on device.\n"),
    ],
)
def test_output_that_goes_nowhere(warm, folder, redirection, status, message):
    script = f'"$0" -m surgery inspect "$1" --json {redirection}'
    # Streams that are closed can't be handed to a process that is forked.
    python = sys.executable if "&-" in redirection else warm.executable
    command = ["bash", "-c", script, python, folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", message)


def test_a_reader_who_has_had_enough(start, folder):
    """In mid-text, that is: what comes next finds a broken pipe."""
    process = start("generate", folder, "0:6", "--prompt", "abc", "--max-new-tokens", 200)
    process.stdout.read(1)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_a_terminal_that_knows_ascii_only(warm, folder):
    """Messages have quotation marks and models speak every language: escaped, never a crash."""
    code = (
        "import sys; from surgery.generation import stream; from surgery.cli import main as cli\n"
        "pieces = ['\\u65e5\\u672c']\n"
        "stream.Stream.__next__ = lambda self: pieces.pop() if pieces else next(iter(()))\n"
        "base, prompt = sys.argv[1:]\n"
        "failed = cli.main(['preview', base, '\\u00b2'])\n"
        "sys.exit(10 * failed + cli.main(['generate', base, '0:6', '--prompt', prompt]))"
    )
    done = warm.run("-c", code, folder, "é", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (10, r"\u65e5\u672c" + "\n")
    assert done.stderr.startswith(r"Error: \u201c\xb2\u201d is not a range")
    assert done.stderr.isascii() and done.stderr.count("\n") == 1


def test_a_terminal_shows_progress(start, tmp_path):
    """A bar on stderr while it works, gone when it is done; stdout has the result alone."""
    ours, theirs = pty.openpty()
    terminal = {"TERM": "xterm", "COLUMNS": "80"}
    process = start("save", "bundled", "0:30", tmp_path / "out", stderr=theirs, env=terminal)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # Linux reports the other end's closing so
        pass
    os.close(ours)
    out = process.communicate()[0]
    assert process.returncode == 0 and out.count(b"\n") == 1
    shown = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).decode()
    assert re.search(r"Writing weights.*\d+ %", shown)
    assert seen.rstrip().endswith(b"\x1b[2K")  # the line is cleared
