"""Damaged run folders: runs resume from an intact state, or report the damage."""

import json
import os
import pickle
import shutil
import zlib
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file, save_file

from surgery import Base, Plan, SurgeryError
from surgery.cli import main
from surgery.healing import HealingRun, Settings, run_checkpoint

PLAN = Plan.parse("0:2, 4:6", 6)
LAST = "state-00000004"


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory):
    """A run of six steps that was stopped after four: (base, settings, folder, all losses)."""
    place = tmp_path_factory.mktemp("runs")
    (place / "held-out.txt").write_text("It was a quiet day, and nobody had come. " * 3)
    base = Base.open(str(tiny_folder("llama")))
    settings = Settings(
        steps=6, batch=2, window=16, learning_rate=3e-3, warmup=2, sampled_tokens=64, layers=(1,),
        save_every=2, evaluate_every=100, held_out=str(place / "held-out.txt"),
    )  # fmt: skip
    whole = [event.loss for event in HealingRun(base, PLAN, settings, place / "whole")]
    stopped = HealingRun(base, PLAN, settings, place / "stopped")
    for event in stopped:
        if event.step == 4:
            stopped.stop()
    return base, settings, place / "stopped", whole


@pytest.fixture
def folder(run, tmp_path):
    """A copy of its folder to be damaged."""
    return shutil.copytree(run[2], tmp_path / "run")


def text(written):
    return lambda path: path.write_text(written)


def field(*keys, **changes):
    """Set (or, if no value is given, remove) a field in a file of JSON."""

    def damage(path):
        inner = value = json.loads(path.read_text())
        for key in keys[:-1]:
            inner = inner[key]
        if "to" in changes:
            inner[keys[-1]] = changes["to"]
        else:
            del inner[keys[-1]]
        path.write_text(json.dumps(value))

    return damage


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def emptied(path):
    os.truncate(path, 0)


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_pickle(path):
    path.write_bytes(pickle.dumps({"step": 4}))


def a_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def flipped(path):
    """Flip one bit of a value, which only a checksum detects."""
    data = bytearray(path.read_bytes())
    data[-5] ^= 64
    path.write_bytes(data)


def of_before(path):
    """The same file of the state before."""
    shutil.copy(path.parent.parent / "state-00000002" / path.name, path)


def tensors(change):
    """Other tensors in a file, with a matching checksum in state.json."""

    def damage(path):
        result = load_file(path)
        change(result, sorted(result)[0])
        result = {name: tensor.clone().contiguous() for name, tensor in result.items()}
        path.unlink()
        save_file(result, path)
        field("files", path.name, to=zlib.crc32(path.read_bytes()))(path.parent / "state.json")

    return damage


def one_number(stored, name):
    stored[name] = torch.ones(1)


def one_row(stored, name):
    stored[name] = stored[name].reshape(-1)[:1].expand(1, 1)


def transposed(stored, name):
    name = next(name for name, tensor in stored.items() if tensor.ndim == 2)
    stored[name] = stored[name].T if len(set(stored[name].shape)) == 2 else stored[name][:-1]


def half(stored, name):
    stored[name] = stored[name].half()


def double(stored, name):
    stored[name] = stored[name].double()


def renamed(stored, name):
    stored[f"{name}x"] = stored.pop(name)


def missing(stored, name):
    del stored[name]


def another(stored, name):
    stored["more"] = stored[name]


ANYWHERE = {
    "cut off": truncated,
    "empty": emptied,
    "gone": os.unlink,
    "a folder": a_folder,
    "a pickle": a_pickle,
    "a loop of links": a_loop,
}
JSON = {
    **ANYWHERE,
    "no JSON": text("{'step': 4}"),
    "no UTF-8": lambda path: path.write_bytes(b'{"step": "\xff"}'),
    "a list": text("[]"),
    "null": text("null"),
    "a number": text("4"),
    "nothing in it": text("{}"),
    "deep": text('{"step": ' + "[" * 100_000),
    "more in it": field("more", to=1),
}
NUMBERS = {
    **JSON,
    **{
        f"no {key}": field(key)
        for key in ("step", "steps", "seconds", "losses", "evaluations", "files")
    },
    "step as text": field("step", to="4"),
    "step with a point": field("step", to=4.5),
    "step true": field("step", to=True),
    "step of another": field("step", to=3),
    "step below zero": field("step", to=-4),
    "step too large": field("step", to=10**400),
    "steps zero": field("steps", to=0),
    "steps below zero": field("steps", to=-6),
    "fewer steps than were done": field("steps", to=3),
    "steps of another run": field("steps", to=60),
    "steps unknown": field("steps", to=None),
    "seconds below zero": field("seconds", to=-1.0),
    "seconds no number": field("seconds", to=float("nan")),
    "seconds without end": field("seconds", to=float("inf")),
    "losses as text": field("losses", to="1234"),
    "losses null": field("losses", to=None),
    "too few losses": field("losses", to=[1.0]),
    "a loss as text": field("losses", 2, to="1.0"),
    "a loss null": field("losses", 2, to=None),
    "a loss that is no number": field("losses", 2, to=float("nan")),
    "a loss without end": field("losses", 2, to=float("inf")),
    "no evaluation": field("evaluations", to=[]),
    "evaluations null": field("evaluations", to=None),
    "an evaluation without anything": field("evaluations", to=[{}]),
    "an evaluation without a base": field("evaluations", 0, "base"),
    "an evaluation with half a reading": field("evaluations", 0, "base", "low"),
    "an evaluation of later": field("evaluations", 0, "step", to=5),
    "an evaluation whose text is a number": field("evaluations", 0, "text", to=3),
    "a share of two numbers": field("evaluations", 0, "recovered", to=[0.5, 0.4]),
    "other checksums": field("files", "trained.safetensors", to=0),
    "no checksum": field("files", "moments.safetensors"),
    "a checksum as text": field("files", "moments.safetensors", to="0"),
}
TENSORS = {
    **ANYWHERE,
    "a bit": flipped,
    "those of before": of_before,
    "no header": lambda path: path.write_bytes(bytes(64)),
    "an endless header": lambda path: path.write_bytes(b"\xff" * 64),
    **{
        change.__name__.replace("_", " "): tensors(change)
        for change in (one_number, one_row, transposed, half, double, renamed, missing, another)
    },
}
STATE = {
    **{f"state.json: {name}": ("state.json", damage) for name, damage in NUMBERS.items()},
    **{
        f"{file}: {name}": (f"{file}.safetensors", damage)
        for file in ("trained", "moments")
        for name, damage in TENSORS.items()
    },
    "its folder: gone": (".", shutil.rmtree),
    "its folder: empty": (".", lambda path: (shutil.rmtree(path), path.mkdir())),
    "its folder: a file": (".", lambda path: (shutil.rmtree(path), path.touch())),
    "its folder: of another step": (".", lambda path: path.rename(path.parent / "state-00000005")),
}
RUN = {
    **JSON,
    **{
        f"no {key}": field(key)
        for key in ("format", "base", "parameters", "plan", "settings", "text")
    },
    "of an older version": field("format", to=1),
    "of a later version": field("format", to=3),
    "another base": field("base", to="other"),
    "base a number": field("base", to=3),
    "parameters below zero": field("parameters", to=-1),
    "parameters as text": field("parameters", to="1000"),
    "another plan": field("plan", to="0:6"),
    "settings null": field("settings", to=None),
    "settings a list": field("settings", to=[]),
    "no settings": field("settings", to={}),
    "a setting of another version": field("settings", "magic", to=1),
    "a setting as text": field("settings", "batch", to="2"),
    "a setting no number": field("settings", "learning_rate", to=float("nan")),
    "a setting too large": field("settings", "seed", to=10**400),
    "a setting below zero": field("settings", "window", to=-16),
    "layers a number": field("settings", "layers", to=1),
    "layers as text": field("settings", "layers", to="1"),
    "another setting": field("settings", "seed", to=1),
    "text a number": field("settings", "text", to=7),
    "another text": field("text", to=0),
    "a checksum too large": field("text", to=1 << 32),
}
TOKENS = {
    **ANYWHERE,
    "a bit": flipped,
    "no header": lambda path: path.write_bytes(bytes(64)),
}


def tokens(change):
    """Other tokens, with a matching checksum in run.json."""

    def damage(path):
        result = change(load_file(path)["tokens"]).clone().contiguous()
        path.unlink()
        save_file({"tokens": result}, path)
        field("text", to=zlib.crc32(path.read_bytes()))(path.parent.parent / "run.json")

    return damage


TOKENS |= {
    "none": tokens(lambda stored: stored[:0]),
    "of another window": tokens(lambda stored: stored[:, :8]),
    "in a row": tokens(lambda stored: stored.flatten()),
    "as numbers with a point": tokens(lambda stored: stored.float()),
}


def resumed(run, folder):
    base, settings, _, _ = run
    return HealingRun(base, PLAN, settings, folder)


def go_on(run, folder):
    """Resume to the end: (step it resumed from, its losses)."""
    again = resumed(run, folder)
    return again.step, [event.loss for event in again]


@pytest.mark.parametrize("damage", STATE)
def test_a_damaged_state_gives_way_to_the_one_before(run, folder, damage):
    """The next losses equal those of an undamaged run, to the last bit: the first shows weights
    that were read from the damaged state, and the second its moments."""
    file, change = STATE[damage]
    change(folder / LAST / file)
    again = resumed(run, folder)
    assert again.step == 2
    assert [event.loss for event in islice(again, 2)] == run[3][2:4]


@pytest.mark.parametrize(
    "damage",
    [
        "state.json: a loop of links",
        "trained: a folder",
        "moments: cut off",
        *(name for name in STATE if name.startswith("its folder: ")),
    ],
)
def test_states_are_written_in_the_place_of_damaged_ones(run, folder, damage):
    file, change = STATE[damage]
    change(folder / LAST / file)
    assert go_on(run, folder) == (2, run[3][2:])
    assert go_on(run, folder) == (6, [])


def test_what_is_not_damaged_is_taken(run, folder):
    assert go_on(run, folder) == (4, run[3][4:])
    assert run_checkpoint.states(folder) == [4, 6]


def test_a_state_of_an_earlier_version_is_taken(run, folder):
    """Its evaluations have another name."""
    place = folder / LAST / "state.json"
    numbers = json.loads(place.read_text())
    numbers["looks"] = numbers.pop("evaluations")
    place.write_text(json.dumps(numbers))
    again = resumed(run, folder)
    assert again.step == 4
    assert [one.as_dict() for one in again.evaluations] == numbers["looks"]


@pytest.mark.parametrize("damage", ["state.json: cut off", "trained: one number"])
def test_if_no_state_can_be_read_it_says_so(run, folder, damage):
    """It does not start over by itself, which might discard hours of work."""
    file, change = STATE[damage]
    for state in folder.glob("state-*"):
        change(state / file)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(SurgeryError, match=r"None of the states in .*/run can be read\. Remove"):
        go_on(run, folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_killed_before_the_first_state_it_begins(run, folder):
    for state in folder.glob("state-*"):
        shutil.rmtree(state)
    assert go_on(run, folder) == (0, run[3])


@pytest.mark.parametrize("damage", RUN)
def test_a_damaged_description_is_refused(run, folder, damage):
    RUN[damage](folder / "run.json")
    with pytest.raises(
        SurgeryError, match=r"holds (no readable|a run with)|other settings|text of the run"
    ):
        go_on(run, folder)


@pytest.mark.parametrize("damage", TOKENS)
def test_a_damaged_text_is_refused(run, folder, damage):
    TOKENS[damage](folder / "text" / "tokens.safetensors")
    with pytest.raises(SurgeryError, match=r"The text of the run in .* can't be read"):
        go_on(run, folder)


@pytest.mark.parametrize(
    ("file", "change", "status", "message"),
    [
        ("run.json", truncated, 1, "holds no readable healing run"),
        ("text/tokens.safetensors", flipped, 1, "can't be read (its checksum doesn't match)"),
        (f"{LAST}/state.json", truncated, 0, "The state saved after step 4 can't be read"),
        (f"{LAST}/trained.safetensors", tensors(one_number), 0, "resuming after step 2"),
    ],
)
def test_the_command_says_it_too(run, folder, capsys, tmp_path, file, change, status, message):
    base, settings, _, _ = run
    folder.rename(tmp_path / "out.healing")
    change(tmp_path / "out.healing" / file)
    result = "--steps 6 --batch 2 --window 16 --lr 3e-3 --warmup 2 --sampled-tokens 64 --layers 1"
    given = [str(base.source.home), str(PLAN), str(tmp_path / "out"), *result.split()]
    given += ["--save-every", "2", "--evaluate-every", "100", "--held-out", settings.held_out]
    assert main.main(["heal", *given]) == status
    err = capsys.readouterr().err
    assert message in " ".join(err.split()) and "Traceback" not in err
    assert (tmp_path / "out").exists() == (status == 0)
    assert (tmp_path / "out.healing").exists() == (status != 0)


def test_a_run_that_is_done_takes_nobody_else_s_files_along(folder):
    (folder / "text" / "mine.txt").write_text("mine")
    (folder / "state-00000007").touch()
    run_checkpoint.remove(folder)
    assert [path.name for path in folder.rglob("*")] == ["text", "mine.txt"]
    (folder / "text" / "mine.txt").unlink()
    run_checkpoint.remove(folder)
    assert not folder.exists()
