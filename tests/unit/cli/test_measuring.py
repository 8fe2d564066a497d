"""The commands that measure, from arguments to output."""

import json
import math
import os
import re

import pytest
import tiny
from transformers import MambaConfig, MambaForCausalLM

from surgery import Base, texts
from surgery.analysis import Sample, judging, precision, scan
from surgery.analysis.pilot import Pilot
from surgery.cli.sample import Text, read_text, sized_sample
from surgery.progress import silent


@pytest.fixture
def folder(tiny_folder):
    return str(tiny_folder("gemma3_text"))


SHORT = ["--limit", "120", "--window", "60"]


def test_scan_in_json(run, folder):
    status, out, err = run("scan", folder, "--json", *SHORT)
    facts = json.loads(out)
    assert (status, err) == (0, "")
    base = Base.open(folder)
    result = scan(base, Sample.of(base, texts.get("prose"), window=60, limit=120))
    assert facts["tokens"] == 118 and facts["sequences"] == 2
    assert facts["perplexity"] == result.perplexity.perplexity
    assert facts["low"] < facts["perplexity"] < facts["high"]
    assert facts["block_influence"] == list(result.block_influence)
    assert facts["angular"] == [list(row) for row in result.angular]
    assert facts["angular"][2][4] is not None and facts["angular"][2][5] is None
    for name in ("drop_one", "repeat_one"):
        assert [row["layer"] for row in facts[name]] == list(range(tiny.DEPTH))
        for row, one in zip(facts[name], getattr(result, name), strict=True):
            assert (row["perplexity"], row["low"], row["high"]) == (
                one.perplexity,
                one.low,
                one.high,
            )


def test_scan_for_people(run, folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The ferry ran twice a day in summer.\n" * 4, encoding="utf-8")
    ask = ["scan", folder, "--text", text, "--score", "repeat_map", "--score", "taylor"]
    status, out, _ = run(*ask, "--within", "1:3")
    assert status == 0 and "Taylor" in out and "Best blocks to repeat" in out
    assert "1:3" in out and "0:3" not in out and "tokens scored in 1 sequence." in out
    facts = json.loads(run(*ask, "--within", "1:3", "--json")[1])
    assert {(r["start"], r["end"]) for r in facts["repeat_map"]} == {(1, 2), (1, 3), (2, 3)}
    status, out, _ = run("scan", folder, "--text", text)  # which no other test has measured
    assert status == 0 and "dropped" in out and "sliding" in out and "layer-forwards" in out


def test_a_reason_is_given_once_with_the_layers_it_holds_for(run, tmp_path):
    """Mamba's layers have no MLP to leave out."""
    config = MambaConfig(vocab_size=tiny.VOCAB, hidden_size=16, state_size=4, num_hidden_layers=3)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    tiny.tokenizer().save_pretrained(tmp_path / "mamba")
    status, out, _ = run("scan", tmp_path / "mamba", "--score", "drop_mlp", *SHORT)
    assert status == 0 and out.count("Not measured") == 1
    said = "Not measured for layers 0:3, for the same reason: @no-mlp can't be done for layer 0"
    assert said in " ".join(out.split())


def test_suggest(run, folder):
    status, out, _ = run("suggest", folder, "--layers", 4, "--json", *SHORT)
    facts = json.loads(out)
    assert status == 0 and facts["perplexity"] > 1
    methods = [one["method"] for one in facts["suggestions"]]
    assert sorted(methods) == ["block", "drop_one", "greedy", "influence", "random"]
    (control,) = (one["plan"] for one in facts["suggestions"] if one["method"] == "random")
    for one in facts["suggestions"]:
        assert one["layers"] == 4 and one["low"] <= one["perplexity"] <= one["high"]
        judged = one["judged"]
        assert judged["cost"]["low"] <= judged["cost"]["nats_per_token"] <= judged["cost"]["high"]
        assert judged["tokens"] > facts["tokens"]
        assert (judged["p"] is None) is (one["plan"] == control)
    assert "half to choose on" in facts["text"] and "half to judge on" in facts["judged_on"]
    status, out, _ = run("suggest", folder, "--layers", 4, *SHORT)
    assert status == 0 and all(method in out for method in methods) and "beats random" in out
    size = f"{facts['suggestions'][0]['parameters'] / 1e6:.6f}M"
    ask = ["--parameters", size, "--method", "influence", "--protect", 2, 2, "--json", *SHORT]
    (one,) = json.loads(run("suggest", folder, *ask)[1])["suggestions"]
    assert one["layers"] == 4 and one["plan"] == "0:2, 4:6"


def test_a_text_of_ones_own_is_divided_to_choose_and_to_judge(run, folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The ferry ran twice a day in summer. " * 12, encoding="utf-8")
    ask = ["suggest", folder, "--layers", 5, "--method", "influence", "--text", text]
    facts = json.loads(run(*ask, "--window", 40, "--json")[1])
    assert facts["text"].endswith("its first half") and facts["judged_on"].endswith("second half")
    (one,) = facts["suggestions"]
    assert 0 < one["judged"]["p"] <= 1 and one["judged"]["gain_over_random"]
    short = json.loads(run(*ask, "--json")[1])  # it fits into one window of 256 tokens
    assert 0 < short["tokens"] <= short["suggestions"][0]["judged"]["tokens"] + 2
    text.write_text("The ferry ran.", encoding="utf-8")
    status, _, err = run(*ask)
    assert status == 1 and "too short" in err


def test_compare(run, folder):
    status, out, _ = run("compare", folder, "0:3, 4:6", "--kind", "code", "--json", *SHORT)
    facts = json.loads(out)
    assert status == 0 and facts["kl"]["low"] < facts["kl"]["nats_per_token"]
    assert len(facts["by_token"]) == facts["tokens"] == 118
    assert len(facts["norms"]["base"]) == 6 and len(facts["norms"]["patient"]) == 5
    status, out, _ = run("compare", folder, "0:3, 4:6", *SHORT)
    assert status == 0 and "KL, nats/token" in out and "Largest increases" in out
    assert "To detect 0.01 nats takes about" in " ".join(out.split())


def test_compare_with_layers_of_another_base(run, folder, tmp_path):
    """The patient is held against the base that is operated on, not against the stack."""
    tiny.model("llama").save_pretrained(tmp_path / "a")
    tiny.tokenizer().save_pretrained(tmp_path / "a")
    plan = ["0:3, b/3:6", "--with", f"b={tmp_path / 'a'}"]
    status, out, _ = run("compare", tmp_path / "a", *plan, "--json", *SHORT)
    facts = json.loads(out)
    assert status == 0 and facts["kl"]["nats_per_token"] == pytest.approx(0, abs=1e-6)
    assert facts["perplexity"]["base"] == facts["perplexity"]["patient"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan", "{}", "--kind", "poem"], "no text “poem”"),
        (["scan", "{}", "--kind", "code", "--text", "x"], "Choose one text"),
        (["scan", "{}", "--text", "/nowhere.txt"], "No such file"),
        (["scan", "{}", "--text", "/bin/true"], "not text in UTF-8"),
        (["scan", "{}", "--text", os.devnull], "too short"),
        (["scan", "{}", "--score", "charm"], "not a score"),
        (["scan", "{}", "--within", "x"], "write it as 8:20"),
        (["scan", "{}", "--within", "1:3"], "--within is for the repeat map: add --score"),
        (["suggest", "{}"], "Give a target size"),
        (["suggest", "{}", "--parameters", "many"], "not a number of parameters"),
        (["suggest", "{}", "--layers", "6"], "already has that size"),
        (["compare", "{}", "0:9"], "past the last layer"),
    ],
)
def test_an_error_is_one_plain_line(run, folder, arguments, message):
    status, out, err = run(*(a.replace("{}", folder) for a in arguments))
    assert status == 1 and out == "" and message in err and err.count("\n") == 1


def test_as_many_tokens_as_a_precision_takes(run, folder, monkeypatch):
    monkeypatch.setattr(precision, "PILOT", 128)
    ask = ["compare", folder, "0:2, 4:6", "--window", 60, "--json"]
    found = {}
    for finest in (0.03, 0.015):  # this cost is near zero, so that its share doesn't matter
        monkeypatch.setattr(precision, "FINEST", finest)
        status, out, err = run(*ask, "--precision", 10)
        takes = re.search(r"± 10 % of the cost takes about ([\d,]+) tokens", " ".join(err.split()))
        found[finest] = facts = json.loads(out)
        assert status == 0 and facts["tokens"] > 128
        assert facts["tokens"] == pytest.approx(int(takes[1].replace(",", "")), rel=0.1)
    assert found[0.015]["tokens"] > 2 * found[0.03]["tokens"]
    monkeypatch.setattr(precision, "FINEST", 0.001)
    assert json.loads(run(*ask)[1])["tokens"] == pytest.approx(
        judging.TOKENS, rel=0.02
    )  # no more unasked
    status, out, err = run(*ask, "--precision", 10, "--limit", 500)
    assert (status, out) == (1, "") and "Choose one: --precision" in " ".join(err.split())
    assert "between 0 and 100 %" in " ".join(run(*ask, "--precision", 100)[2].split())


def test_a_scan_says_how_precise_it_is(run, folder):
    ask = ["scan", folder, "--score", "drop_one", "--window", 60]
    status, out, _ = run(*ask, "--limit", 240)
    assert status == 0 and "Costs of single layers are known to ±" in " ".join(out.split())
    facts = json.loads(run(*ask, "--limit", 240, "--json")[1])
    assert facts["precision"] > 0


def test_a_scan_takes_as_much_text_as_it_needs(run, folder, monkeypatch):
    ask = ["scan", folder, "--score", "drop_one", "--json"]
    monkeypatch.setattr(precision, "FINEST", 10)  # any text is enough
    status, out, err = run(*ask)
    facts = json.loads(out)
    assert (status, err) == (0, "") and facts["text"] == "the short text “prose”"

    monkeypatch.setattr(precision, "FINEST", 1e-6)
    monkeypatch.setattr(judging, "TOKENS", 2 * facts["tokens"])
    base = Base.open(folder)
    short = Sample.of(base, texts.get("prose"))
    costs = Pilot.of(base.depth, ["drop_one"]).costs(base, short)
    wanted = precision.median_precision(costs) / math.sqrt(1.5)  # takes 1.5 times the text
    monkeypatch.setattr(precision, "FOR_SCANS", wanted)
    status, out, err = run(*ask)
    longer = json.loads(out)
    takes = re.search(r"takes about ([\d,]+) tokens", " ".join(err.split()))
    assert status == 0 and "the half to choose on" in longer["text"]
    assert longer["tokens"] == pytest.approx(1.5 * short.tokens, rel=0.1)
    assert longer["tokens"] == pytest.approx(int(takes[1].replace(",", "")), rel=0.06)
    part = json.loads(run(*ask, "--part", "2/2")[1])  # which chooses the same text by itself
    assert part["text"] == longer["text"] and part["missing"] == 0

    monkeypatch.setattr(precision, "FOR_SCANS", wanted / 10)
    status, out, err = run(*ask)
    assert json.loads(out)["tokens"] == pytest.approx(judging.TOKENS, rel=0.02)
    assert "are read" in " ".join(err.split())


def test_processes_whose_pilots_hardly_differ_take_the_same_text(folder, monkeypatch):
    """Parts of a scan that each measures by itself, on another machine."""
    base, keys = Base.open(folder), set()
    for tokens in (680, 681, 684):
        found = lambda *_, tokens=tokens: precision.Size(0.4, tokens, None)  # noqa: E731
        monkeypatch.setattr(precision, "size_of", found)
        text = Text("The ferry ran twice a day in summer. " * 60, "a text", None, None)
        made, _ = sized_sample(base, text, None, lambda *_: [], silent, default=0.4)
        assert tokens <= made.tokens < tokens + 64
        keys.add(made.key)
    assert len(keys) == 1


def test_as_many_rows_of_a_data_set_are_read_as_a_precision_takes(folder, monkeypatch):
    asked, row = [], "The ferry ran twice a day in summer, if it ran. " * 2

    def from_dataset(name, split, column, limit, progress):
        asked.append(limit)
        return [row] * limit

    monkeypatch.setattr(texts, "from_dataset", from_dataset)
    monkeypatch.setattr(precision, "size_of", lambda *_: precision.Size(0.1, 20_000, None))
    text = read_text(None, None, "org/name", None, None, silent, "choose", 10)
    made, _ = sized_sample(Base.open(folder), text, 10, lambda *_: [], silent)
    assert 20_000 <= made.tokens < 20_200 and asked[0] == 4096 // 64 and len(asked) == 2


def test_rows_of_a_data_set_are_read_until_they_have_the_tokens(folder, monkeypatch):
    """Short rows have fewer than the 64 tokens that are expected, and some data sets end."""
    asked, there = [], 10_000

    def from_dataset(name, split, column, limit, progress):
        asked.append(limit)
        return ["A ferry."] * min(limit, there)

    monkeypatch.setattr(texts, "from_dataset", from_dataset)
    base = Base.open(folder)
    text = read_text(None, None, "org/name", None, None, silent, "choose", 10)
    short, _, is_all = text.first(base)
    assert short.truncated and not is_all
    sample, name = text.sample(base, 3000)
    assert sample.truncated and "its first 3,000 tokens" in name and len(asked) == 3
    limited = read_text(None, None, "org/name", None, 1000, silent)
    assert limited.sample(base, 1000)[0].truncated
    there = 100
    few = read_text(None, None, "org/name", None, 1000, silent)
    sample, name = few.sample(base, 1000)
    assert not sample.truncated and "first" not in name
