"""One scan over two processes, as launchers start them, gives what one process gives."""

import json

import pytest

pytestmark = pytest.mark.slow

# accelerate's own way to several processes on one machine; without a GPU they talk by gloo.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
OPTIONS = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


@pytest.mark.timeout(240)
def test_two_processes(warm, tiny_folder, tmp_path):
    folder = tiny_folder("llama")
    ask = [
        "-m",
        "surgery",
        "scan",
        folder,
        "--kind",
        "facts",
        "--limit",
        "200",
        "--json",
        "--score",
        "drop_one",
    ]
    ask += ["--score", "block_influence", "--score", "taylor"]
    launcher = [*LAUNCH, "--main_process_port", "0", *OPTIONS]
    env = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHON_EXEC": warm.executable}

    def start(name, *command):
        return warm.start(*command, env=env | {"LAYER_SURGERY_CACHE": str(tmp_path / name)})

    both = start("two", *launcher, *ask)
    one = start("one", *ask)
    together, alone = (run.communicate() for run in (both, one))
    assert both.returncode == 0, together[1].decode()
    result, expected = (json.loads(out) for out, _ in (together, alone))
    # Each ran a pass of its own, so that together they did one more.
    assert expected["naive_layer_forwards"] == 6 + 6 * 5 + 3 * 6
    assert result["naive_layer_forwards"] == expected["naive_layer_forwards"] + 6
    for both_sides in (result, expected):
        both_sides.pop("layer_forwards"), both_sides.pop("naive_layer_forwards")
    assert result == expected
