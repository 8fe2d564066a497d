"""JSON for users: what isn't finite is null, so that every parser reads it."""

import json
import math

import numpy as np

from surgery.checkpoint.trained import TrainedTensors, digests
from surgery.cli.common import print_json
from surgery.io.strict_json import plain, to_json

ODD = {
    "cut": math.inf,
    "low": [-math.inf, 1.5],
    "high": (np.float64("nan"), {"x": math.nan}),
    "n": 3,
}
PLAIN = {"cut": None, "low": [None, 1.5], "high": [None, {"x": None}], "n": 3}


def strict(text):
    """What a parser reads that knows JSON alone."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_null_stands_for_what_is_not_finite():
    assert plain(ODD) == PLAIN
    assert strict(to_json(ODD)) == PLAIN
    assert to_json({"b": 1, "a": "ü"}, sort_keys=True) == '{\n  "a": "\\u00fc",\n  "b": 1\n}\n'


def test_so_do_the_command_line_and_the_records_of_checkpoints(capsys, tmp_path):
    print_json(ODD)
    assert strict(capsys.readouterr().out) == PLAIN
    trained = TrainedTensors({}, "", {"perplexity": ODD}, "repaired", "repair.json")
    trained.write(tmp_path, [])
    text = (tmp_path / "repair.json").read_text(encoding="utf-8")
    assert strict(text) == {"perplexity": PLAIN, "tensors": {}}
    assert digests(tmp_path) == {}
