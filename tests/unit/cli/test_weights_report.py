"""`python -m surgery weights`: the same numbers in a table and in JSON."""

import json
import re

import pytest
import tiny


def test_json_is_what_the_weights_are(run, tiny_folder):
    status, out, err = run("weights", tiny_folder("llama"), "0:2, 4:6, 5@identity", "--json")
    assert (status, err) == (0, "")
    facts = json.loads(out)
    assert facts["plan"] == "0:2, 4:6, 5@identity" and facts["share_counted"] == 1.0
    assert [layer["source"] for layer in facts["layers"]] == [0, 1, 4, 5, 5]
    model = tiny.model("llama")
    weight = model.model.layers[4].mlp.up_proj.weight
    message = facts["layers"][2]["kinds"]["up"]
    assert message["values"] == weight.numel() and facts["layers"][2]["rounded_to_bfloat16"]
    assert message["deviation"] == pytest.approx(weight.double().std(correction=0).item(), rel=1e-3)
    assert message["maximum"] == pytest.approx(weight.max().item(), rel=1 / 256)
    last = facts["layers"][4]
    assert last["init"] == "identity" and last["kinds"]["o"]["zeros"] == 64 * 64
    assert last["kinds"]["o"]["kurtosis"] is None
    assert [(s["position"], s["before"], s["after"]) for s in facts["seams"]] == [
        (2, 1, 4),
        (4, 5, 5),
    ]
    norms = [layer["all"]["norm"] for layer in facts["layers"]]
    assert facts["seams"][1]["norm_change"] == pytest.approx(norms[4] / norms[3] - 1)
    assert facts["outside"]["embedding"]["values"] == 128 * 64


def test_the_table_fits_a_terminal(run, tiny_folder):
    status, out, err = run("weights", tiny_folder("llama"), "0:5, 4:6@scale=0.5")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out
    assert "seam" in out and "5@scale=0.5" in out and "nearest bfloat16" in out
    rows = [line.split() for line in out.splitlines() if re.match(r"\d+ +\d", line)]
    assert [row[1] for row in rows] == ["0", "1", "2", "3", "4", "4@scale=0.5", "5@scale=0.5"]


def test_without_a_plan_it_is_the_base(run, tiny_folder):
    whole = json.loads(run("weights", tiny_folder("llama"), "--json")[1])
    assert len(whole["layers"]) == tiny.DEPTH and whole["seams"] == []
    status, _, err = run("weights", tiny_folder("llama"), "0:99")
    assert status == 1 and "0:99" in err
