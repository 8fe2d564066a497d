"""Runs as processes of their own: killed without warning, and several at one run."""

import io
import json
import os
import signal
import time
from contextlib import redirect_stdout

import pytest

from surgery.cli import main

pytestmark = pytest.mark.slow

SHORT = "--steps 10 --batch 4 --window 16 --lr 3e-3 --warmup 2 --sampled-tokens 256 --save-every 2"
LAUNCH = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where all runs write to."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def command(tiny_folder, place):
    """A function: the arguments of `heal` that write to a folder of this name."""
    held_out = place / "held-out.txt"
    held_out.write_text("It was a quiet day, and nobody had come to see the garden. " * 2)

    def made(out):
        where = [str(tiny_folder("llama")), "0:2, 4:6", str(place / out)]
        result = [*SHORT.split(), "--held-out", str(held_out), "--evaluate-every", "100", "--json"]
        return ["heal", *where, *result]

    return made


@pytest.fixture(scope="module")
def one(command):
    """What a run says that nobody disturbs."""
    return here(*command("one"))


def here(*command):
    """What a command prints in JSON, in this process."""
    with redirect_stdout(io.StringIO()) as printed:
        assert main.main(list(command)) == 0
    return json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def launch(warm):
    """A function: what a command that two processes run prints in JSON."""

    def launch(command, *options):
        env = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "PYTHON_EXEC": warm.executable}
        done = warm.run(*LAUNCH, *options, "-m", "surgery", *command, env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return launch


def test_kill_9_and_the_same_command_goes_on(warm, one, command, place):
    """The losses after it are those of a run that nobody killed, to the last bit."""
    whole, folder = one["losses"], place / "out.healing"
    process = warm.start("-m", "surgery", *command("out"), env={"OMP_NUM_THREADS": "1"})
    while not (folder / "state-00000004").is_dir():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (place / "out").exists() and process.returncode == -signal.SIGKILL
    state = max(folder.glob("state-*")) / "state.json"
    done = json.loads(state.read_text())["losses"]
    assert 4 <= len(done) < 10 and done == whole[: len(done)]
    assert here(*command("out"))["losses"] == whole
    assert (place / "out" / "model.safetensors").is_file() and not folder.exists()


def test_two_processes_compute_what_one_does(launch, one, command):
    """Each batch is split between the two (gloo): the same losses but for the order of sums."""
    two = launch(command("two"), "--multi_gpu")
    assert len(two["losses"]) == 10
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    healed = [facts["perplexity"]["healed"] for facts in (one, two)]
    assert healed[0] == pytest.approx(healed[1], rel=1e-4)


def test_sharded_over_two_processes(launch, one, command):
    """FSDP: parameters, gradients and moments lie half on each."""
    two = launch(command("sharded"), "--use_fsdp", "--fsdp_version", "2")
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)


@pytest.mark.parametrize("options", [["--multi_gpu"], ["--use_fsdp", "--fsdp_version", "2"]])
def test_minutes_are_shared_too(launch, command, options):
    """A step is tried, text written, and steps counted: by all processes alike."""
    given = command(f"timed{len(options)}")
    for name in ("--sampled-tokens", "--evaluate-every"):
        at = given.index(name)
        del given[at : at + 2]
    at = given.index("--steps")
    given[at : at + 2] = ["--minutes", "0.05"]
    two = launch(given, *options)
    assert len(two["losses"]) == two["steps"] > 0
