"""One scan over two processes, as launchers start them, gives what one process gives."""

import json

import pytest

from surgery.cli import main

pytestmark = pytest.mark.slow

# accelerate's own way to several processes on one machine; without a GPU they talk by gloo.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
OPTIONS = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


@pytest.mark.timeout(240)
def test_two_processes(warm, tiny_folder, tmp_path, monkeypatch, capsys):
    folder = tiny_folder("llama")
    ask = ["scan", str(folder), "--kind", "facts", "--limit", "200", "--json"]
    ask += ["--score", "drop_one", "--score", "block_influence", "--score", "taylor"]
    launcher = [*LAUNCH, "--main_process_port", "0", *OPTIONS]
    env = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHON_EXEC": warm.executable}
    env["LAYER_SURGERY_CACHE"] = str(tmp_path / "two")
    both = warm.start(*launcher, "-m", "surgery", *ask, env=env)
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "one"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # no GPU here either
    assert main.main(ask) == 0
    expected = json.loads(capsys.readouterr().out)
    out, err = both.communicate()
    assert both.returncode == 0, err.decode()
    result = json.loads(out)
    # Each ran a pass of its own, so that together they did one more.
    assert expected["naive_layer_forwards"] == 6 + 6 * 5 + 3 * 6
    assert result["naive_layer_forwards"] == expected["naive_layer_forwards"] + 6
    for both_sides in (result, expected):
        both_sides.pop("layer_forwards"), both_sides.pop("naive_layer_forwards")
    assert result == expected
