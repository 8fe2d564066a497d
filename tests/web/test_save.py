"""Names of checkpoints, and what is said once they are saved."""

import pytest
from updates import run

from components.panels.save.wiring import ended, save
from components.services.checkpoints import AS_STORED, default_name, file_name
from surgery import Base, Plan
from surgery.operation import Operation


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("my patient", "my-patient"),
        ("../../etc/passwd", "passwd"),
        ("..", ""),
        ("a\0b\nc", "a-b-c"),
        ("<b>x</b>", "b"),
        (".hidden", "hidden"),
        ("x" * 300, "x" * 80),
        (None, ""),
    ],
)
def test_a_name_is_safe_whatever_was_typed(typed, name):
    assert file_name(typed) == name


def test_random_weights_are_not_named_after_the_model_that_lent_its_config(tiny_folder):
    folder = tiny_folder("llama")
    trained, random = Base.open(str(folder)), Base.open(f"config:{folder},num_hidden_layers=3")
    assert default_name(trained, 4) == f"{file_name(trained.name)}-4-layers"
    assert default_name(random, 3) == "Llama-random-weights-3-layers"


def test_a_save_that_fails_says_why_and_leaves_nothing(services, tiny_folder, tmp_path):
    spec = str(tiny_folder("qwen2"))
    own = tmp_path / "own"
    work = save(services, Operation(spec, Plan.parse("0:3@average", 6)), "x", AS_STORED, own, str)
    updates = run(services, work, ended)
    assert updates[-1][0]["failed"] and "@average" in updates[-1][0]["text"]
    assert not list(tmp_path.iterdir())


def test_a_download_is_one_file(services, tiny_folder, tmp_path):
    operation = Operation(str(tiny_folder("llama")), Plan.parse("0:3", 6))
    updates = save(services, operation, "", "bfloat16", tmp_path, lambda path: "an/address")
    *before, (status, link, snippet, stop) = updates
    assert all(update[-1]["visible"] for update in before) and not stop["visible"]
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".zip" and link == {"address": "an/address"}
    assert str(tmp_path) not in repr((status, link, snippet))
    assert path.name in status["text"] and path.stem in snippet["value"]
