"""A scan in parts: processes that share a cache folder, and folders that are copied together."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import tiny

from surgery import Base, SurgeryError, texts
from surgery.analysis import Sample, disk_passes, known_scan, scan, scan_part
from surgery.analysis.cache import _memory
from surgery.cli import main

SCORES = ["drop_one", "repeat_one", "block_influence", "taylor"]
OPTIONS = [word for score in SCORES for word in ("--score", score)] + ["--json"]
COUNTED = ("layer_forwards", "naive_layer_forwards")


@pytest.fixture
def start(warm):
    """A function: start a scan as a process of its own."""

    def start(cache, *arguments):
        env = {"LAYER_SURGERY_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        return warm.start("-m", "surgery", "scan", *arguments, *OPTIONS, env=env)

    return start


def ended(process):
    out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.fixture
def here(monkeypatch, capsys):
    """A function: what a scan in this process says, which remembers nothing of any other."""

    def here(cache, *arguments):
        monkeypatch.setenv("LAYER_SURGERY_CACHE", str(cache))
        _memory.clear()
        assert main.main(["scan", *map(str, arguments), *OPTIONS]) == 0
        return json.loads(capsys.readouterr().out)

    return here


def uncounted(result):
    return {key: value for key, value in result.items() if key not in COUNTED}


@pytest.mark.slow
def test_two_processes_side_by_side_fill_one_cache(start, here, tiny_folder, tmp_path):
    ask = [tiny_folder("llama"), "--kind", "facts", "--limit", "200"]
    both = [start(tmp_path / "two", *ask, "--part", f"{k}/2") for k in (1, 2)]
    first, second = map(ended, both)
    assert (first["part"], first["parts"], second["part"]) == (1, 2, 2)
    assert first["measured"] == second["measured"] == 6 and not first["known"] + second["known"]
    assert min(first["missing"], second["missing"]) == 0  # for the one that ended last
    merged, alone = here(tmp_path / "two", *ask), here(tmp_path / "one", *ask)
    assert uncounted(merged) == uncounted(alone)
    assert merged["naive_layer_forwards"] == 0 < alone["naive_layer_forwards"]


@pytest.mark.slow
def test_what_is_measured_before_an_interruption_stays(start, tmp_path):
    tiny.model("llama", num_hidden_layers=16).save_pretrained(tmp_path / "deep")
    tiny.tokenizer().save_pretrained(tmp_path / "deep")
    ask = [tmp_path / "deep", "--kind", "prose", "--score", "repeat_map", "--part", "1/2"]
    process = start(tmp_path / "cache", *ask)
    files = (tmp_path / "cache" / "analysis").glob
    while not list(files("*/plan-*.npz")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130 and err.endswith(b"Stopped.\n"), err
    base = Base.open(str(tmp_path / "deep"))
    found = known_scan(base, Sample.of(base, texts.get("prose")), scores=[*SCORES, "repeat_map"])
    plans = {variant.plan for rows in found.variants.values() for variant in rows.values()}
    assert found.perplexity and len(plans) == len(list(files("*/plan-*.npz"))) - 1 < 70


@pytest.fixture
def machine(tmp_path, monkeypatch, tiny_folder):
    """A function: a base on another machine, with a path and a cache of its own."""
    alive = []  # kept open, so that what follows from a config is worked out once

    def machine(name, family="llama"):
        folder = tmp_path / name / "models" / name
        if not folder.exists():
            shutil.copytree(tiny_folder(family), folder)
        monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / name / "cache"))
        _memory.clear()
        base = Base.open(str(folder))
        alive.append(base)
        return base, Sample.of(base, "The ferry ran twice a day in summer. " * 4, 43)

    return machine


def copied(tmp_path, one, other):
    place = Path("cache") / "analysis"
    shutil.copytree(tmp_path / one / place, tmp_path / other / place, dirs_exist_ok=True)


def test_measurements_of_another_machine_are_merged_by_copying(machine, tmp_path):
    first = scan_part(*machine("a"), 1, 3, scores=SCORES)
    assert (first.number, first.of, first.measured, first.known) == (1, 3, 4, 0)
    assert first.missing == 8
    assert scan_part(*machine("b"), 3, 3, scores=SCORES).missing == 8 + 2  # the arrays of part 1
    copied(tmp_path, "b", "a")
    merged = scan(*machine("a"), scores=SCORES)
    expected = scan(*machine("c"), scores=SCORES)
    assert merged.drop_one == expected.drop_one and merged.repeat_one == expected.repeat_one
    assert merged.values == expected.values and merged.perplexity == expected.perplexity
    assert merged.naive_layer_forwards < expected.naive_layer_forwards / 2
    copied(tmp_path, "c", "b")
    again = known_scan(*machine("b"), scores=SCORES)
    assert again.finished and again.drop_one == expected.drop_one


def test_another_model_of_the_same_name_is_not_merged(machine, tmp_path):
    scan(*machine("a"), scores=["drop_one"])
    base, sample = machine("b")
    weights = Path(base.source.home) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    copied(tmp_path, "a", "b")
    base, sample = machine("b")
    assert known_scan(base, sample, scores=["drop_one"]).perplexity is None
    assert scan_part(base, sample, 1, 1, scores=["drop_one"]).known == 0


def test_nothing_is_read_to_say_what_is_known(machine, monkeypatch):
    base, sample = machine("a")
    with monkeypatch.context() as patch:
        patch.setattr("surgery.sources.fingerprint._hash", lambda *_: pytest.fail("read"))
        assert known_scan(base, sample).perplexity is None
    scan(base, sample)
    assert known_scan(*machine("a")).finished


def test_a_second_try_of_a_part_measures_nothing(machine):
    base, sample = machine("a")
    scan_part(base, sample, 2, 2, scores=["drop_one"])
    _memory.clear()
    again = scan_part(base, sample, 2, 2, scores=["drop_one"])
    assert (again.measured, again.known, again.missing) == (0, 3, 3)
    first = scan_part(base, sample, 1, 2, scores=["drop_one"])
    assert (first.measured, first.missing) == (3, 0)
    more = scan_part(base, sample, 60, 60, scores=["drop_one"])  # more parts than variants
    assert (more.measured, more.known) == (0, 0)


def test_parts_that_nobody_else_would_find_are_refused(machine, tmp_path, monkeypatch):
    base, sample = machine("a")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "file"))
    with pytest.raises(SurgeryError, match=r"can't be kept in .*LAYER_SURGERY_CACHE"):
        scan_part(base, sample, 1, 2)
    bare = Base.open(f"config:{base.source.home}/config.json")
    with pytest.raises(SurgeryError, match="can't be divided into parts"):
        scan_part(bare, Sample((tuple(range(3, 60)),)), 1, 2)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("0/2", "no part 0 of 2"),
        ("3/2", "no part 3 of 2"),
        ("1/0", "no part 1 of 0"),
        ("1", "write it as 1/4"),
        ("-1/2", "write it as 1/4"),
        ("one/two", "write it as 1/4"),
    ],
)
def test_wrong_parts_are_refused(tiny_folder, capsys, part, message):
    ask = ["scan", str(tiny_folder("llama")), "--limit", "100", f"--part={part}"]
    assert main.main(ask) == 1
    assert message in capsys.readouterr().err


def test_the_disk_reads_of_a_part_are_told(machine):
    base, sample = machine("a")
    every = disk_passes(base, sample, scores=["taylor", "drop_one"])
    second = disk_passes(base, sample, scores=["taylor", "drop_one"], part=(1, 2))
    assert every > second > 0  # gradients belong to the first
    scan_part(base, sample, 2, 2, scores=["taylor", "drop_one"])
    assert disk_passes(base, sample, scores=["taylor", "drop_one"], part=(1, 2)) == 0


def test_a_launched_process_has_its_part_already(tiny_folder, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main.main(["scan", str(tiny_folder("llama")), "--part", "1/2"]) == 1
    assert "choose one" in capsys.readouterr().err


def test_a_part_says_how_to_go_on(tiny_folder, capsys):
    ask = ["scan", str(tiny_folder("llama")), "--limit", "100", "--score", "drop_one", "--part"]
    assert main.main([*ask, "1/2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Part 1 of 2: 3 variants measured. 3 measurements of the whole scan")
    assert "without --part" in out
    assert main.main([*ask, "2/2"]) == 0
    assert "The scan is complete here" in capsys.readouterr().out
