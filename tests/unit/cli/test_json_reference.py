"""docs/reference/json.md lists the keys and types of what commands print and write."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from components.panels.log import figures
from components.sessions.measurements import Entry
from surgery import texts
from surgery.analysis import SCORES
from surgery.checkpoint.resize_record import Resizing, write_resized
from surgery.checkpoint.trained import TrainedTensors
from surgery.cli.commands import COMMANDS
from surgery.cli.common import print_json
from surgery.harness import evaluation
from surgery.harness.evaluation import Result, Score
from surgery.healing import run_checkpoint
from surgery.verification.llama_cpp import Agreement
from surgery.verification.runtimes import Continued

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "json.md"
PLAN = "0:2, 4:6"
SHORT = ["--limit", "120", "--window", "60"]
_ROW = re.compile(r"^\| `(?P<key>[^`]+)` \| (?P<kind>[^|]+) \| (?P<meaning>.*?) ?\|$")
_ALL_OF = re.compile(r"^\| all of \[(?P<name>[\w -]+)\]\(#[\w-]+\)(?: in `(?P<inside>[^`]+)`)? \|")
_LINK = re.compile(r"\[(?P<name>[\w -]+)\]\((?P<target>[^)]+)\)")
_TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "list": list,
}
_ELEMENTS = {
    "strings": str,
    "integers": int,
    "numbers": (int, float, type(None)),
    "lists": (list, type(None)),
    "objects": dict,
}


@dataclass(frozen=True)
class Key:
    """A row: what the value may be, and whether it may be missing."""

    kind: str
    optional: bool


@dataclass
class Node:
    """An object on the page, or a value in one; `*` is any key, and `[]` an element of a list."""

    key: Key | None = None
    inner: dict[str, Node] = field(default_factory=dict)

    def at(self, path: str) -> Node:
        node = self
        for part in re.findall(r"\[\]|[^.\[]+", path):
            node = node.inner.setdefault(part, Node())
        return node


def tables(page: str) -> dict[str, list[str]]:
    """The rows of the tables by the heading above them."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in re.sub(r"^```.*?^```", "", page, flags=re.M | re.S).splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not line.startswith(("| Key |", "|---")):
            found.setdefault(heading, []).append(line)
    return found


TABLES = tables(PAGE.read_text(encoding="utf-8"))


def documented(heading: str) -> Node:
    """What the page says of the object under a heading."""
    root = Node()
    _add(root, heading)
    return root


def _add(node: Node, heading: str) -> None:
    for line in TABLES[heading]:
        if every := _ALL_OF.match(line):
            _add(node.at(every["inside"] or ""), every["name"])
            continue
        row = _ROW.match(line)
        assert row, f"{heading}: not a row of this page: {line}"
        inside = node.at(row["key"])
        assert inside.key is None, f"{heading}: {row['key']} is listed twice"
        inside.key = Key(row["kind"], row["meaning"].startswith("Only "))
        if (link := _LINK.match(row["kind"])) and link["target"].startswith("#"):
            _add(inside, link["name"])


def differences(node: Node, value: object, where: str = "") -> Iterator[str]:
    """Where a value is not what the page says."""
    if node.key and (wrong := _wrong_type(node.key.kind, value)):
        yield f"{where}: {wrong}"
        return
    if isinstance(value, list) and (element := node.inner.get("[]")):
        for one in value:
            yield from differences(element, one, f"{where}[]")
    if not isinstance(value, dict) or (node.key and "](" in node.key.kind and not node.inner):
        return  # what is in it stands on another page
    each = node.inner.get("*")
    for key, one in value.items():
        name = f"{where}.{key}".lstrip(".")
        if (inside := node.inner.get(key, each)) is None:
            yield f"{name} isn't on the page"
        else:
            yield from differences(inside, one, name)
    for key, inside in node.inner.items():
        if key not in ("*", "[]") and key not in value and not (inside.key and inside.key.optional):
            yield f"{where}.{key} is missing".lstrip(".")


def _wrong_type(kind: str, value: object) -> str:
    """What is wrong with the type of a value; nothing if it fits."""
    words = kind.removesuffix(" or null")
    if value is None:
        return "" if kind.endswith(" or null") else f"null is not {kind}"
    wanted = dict if _LINK.match(words) else _TYPES[words.split()[0]]
    fits = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    if fits and isinstance(value, list):
        element = _ELEMENTS[words.removeprefix("list of ")]
        fits = all(isinstance(one, element) for one in value)
    return "" if fits else f"{str(value)[:60]!r} is not {kind}"


def check(heading: str, value: object) -> None:
    assert not list(differences(documented(heading), value))


@pytest.fixture
def printed(run):
    """What a command prints with --json: (its value, exit status)."""

    def printed(*arguments):
        status, out, err = run(*arguments, "--json")
        assert out, err
        return json.loads(out, parse_constant=_no_constant), status

    return printed


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture
def folder(tiny_folder):
    return tiny_folder("gpt2")


@pytest.fixture
def short_texts(monkeypatch):
    get = texts.get
    monkeypatch.setattr(texts, "get", lambda *which: get(*which)[:300])


# ---------------------------------------------------------------- commands


def test_what_bases_and_plans_are(printed, folder, tmp_path):
    check("inspect", printed("inspect", folder)[0])
    check("preview", printed("preview", folder, PLAN)[0])
    check("weights", printed("weights", folder, "0:2, 4:6, 5@identity")[0])
    check("save", printed("save", folder, PLAN, tmp_path / "out")[0])


def test_layers_of_several_kinds(printed, tiny_folder):
    facts = printed("inspect", tiny_folder("gemma3_text"))[0]
    assert facts["layer_kinds"]
    check("inspect", facts)


def test_scans(printed, folder):
    scores = [word for key in SCORES for word in ("--score", key)]
    facts = printed("scan", folder, *scores, *SHORT)[0]
    assert facts.keys() >= SCORES.keys()
    check("scan", facts)
    check("scan", printed("scan", folder, "--score", "taylor", *SHORT)[0])
    check("Part of a scan", printed("scan", folder, "--part", "1/2", *SHORT)[0])


def test_what_plans_do(printed, folder, monkeypatch):
    monkeypatch.setattr("surgery.skills.repetition.PROMPTS", ("Water boils when",))  # one text
    check("compare", printed("compare", folder, PLAN, *SHORT)[0])
    check("tokens", printed("tokens", folder, PLAN, "--prompt", "abc", "--answer", "de")[0])
    check("skills", printed("skills", folder, PLAN, "--items", 8)[0])
    suggest = ["suggest", folder, "--layers", 4, "--method", "influence", "--method", "random"]
    check("suggest", printed(*suggest, *SHORT)[0])


def test_verifications(printed, folder, run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert run("save", folder, PLAN, out)[0] == 0
    check("verify", printed("verify", out, folder)[0])

    class Program:
        """Stands in for transformers in a process of its own."""

        package = "transformers"

    agreement = Agreement(tokens=4, equal=3, largest=0.25, mean=0.0625)
    made = Continued(((1, 2), (3, 4)), "5.0", "bfloat16")
    monkeypatch.setattr("surgery.verification.runtimes.find_runtime", lambda *_: Program)
    monkeypatch.setattr("surgery.verification.folder.verify_folder", lambda *_: (agreement, made))
    facts, status = printed("verify", out, folder, "--runtime", "transformers")
    check("verify", facts)
    assert status == 0 and facts["saved"] == str(out)
    (found,) = facts["runs"]
    assert (found["equal"], found["largest"], found["dtype"]) == (3, 0.25, "bfloat16")
    (out / "model.safetensors").write_bytes(b"")
    status, text, _ = run("verify", out, folder, "--json")
    assert status == 1 and not text


def test_checks(printed, folder, run, tmp_path):
    assert run("save", folder, PLAN, tmp_path / "out")[0] == 0
    limits = ["--max-cost", "-9", "--keep", "copying"]
    facts, status = printed("check", tmp_path / "out", folder, *limits, *SHORT)
    assert status == 1 and len(facts["requirements"]) == 2
    check("check", facts)


def test_evaluations(printed, folder, monkeypatch):
    acc = Result("t", "acc", True, Score(0.75, 0.25), Score(0.5, 0.25), Score(-0.25, 0.125))
    odd = Result("t", "odd", None, *[Score(math.nan, None)] * 3)
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: [acc, odd])
    monkeypatch.setitem(sys.modules, "lm_eval", ModuleType("lm_eval"))
    check("evaluate", printed("evaluate", folder, PLAN, "--tasks", "t")[0])


def test_repairs(printed, folder, tmp_path, short_texts):
    ask = ["--text", "python", "--tokens", 2048, "--anyway"]
    check("repair", printed("repair", folder, PLAN, tmp_path / "a", *ask)[0])
    check("repair.json", json.loads((tmp_path / "a" / "repair.json").read_text()))
    damped = ["repair", folder, "0:4, 2:6", tmp_path / "b", "--method", "damped"]
    check("repair", printed(*damped, *ask)[0])


def test_runs(printed, folder, tmp_path, short_texts, monkeypatch):
    records = {}
    write_json = run_checkpoint._write_json

    def kept(path, value):
        write_json(path, value)
        records[path.name] = json.loads(path.read_text())

    monkeypatch.setattr(run_checkpoint, "_write_json", kept)
    few = ["--steps", 2, "--batch", 1, "--window", 16, "--sampled-tokens", 64]
    few += ["--evaluate-every", 2]
    start = ["--repair", "refit", "--repair-tokens", 2048]
    check("heal", printed("heal", folder, PLAN, tmp_path / "a", *few, *start)[0])
    check("healing.json", json.loads((tmp_path / "a" / "healing.json").read_text()))
    check("run.json", records["run.json"])
    check("state.json", records["state.json"])
    check("facts of a repair", records["facts.json"])
    lora = ["--train", "lora", "--adapter"]
    facts = printed("heal", folder, PLAN, tmp_path / "b", *few, *lora)[0]
    assert "repair" not in facts
    check("heal", facts)
    check("healing.json", json.loads((tmp_path / "b" / "healing.json").read_text()))
    check("Estimate", printed("heal", folder, PLAN, tmp_path / "c", *few, "--cost")[0])


# ---------------------------------------------------------------- other files


def test_the_record_of_resized_embeddings(tmp_path):
    for resizing in (Resizing(128, 130), Resizing(130, 128), Resizing(128, 130, union=True)):
        write_resized(tmp_path, resizing)
        text = (tmp_path / "resized_embeddings.json").read_text()
        check("resized_embeddings.json", json.loads(text))


def test_the_log_as_a_download():
    entries = [
        Entry("id", "tiny", PLAN, 4, 100, perplexity, 8.0, math.inf, 50, "prose")
        for perplexity in (9.0, math.inf)
    ]
    for entry in figures.table(entries, "id")["entries"]:
        check("The Log, as a download", entry)


# ---------------------------------------------------------------- numbers, and the test itself


def test_numbers_that_json_does_not_have_are_null(capsys, tmp_path):
    facts = {"perplexity": {"cut": math.inf}, "intervals": [(1.0, math.nan)]}
    print_json(facts)
    plain = {"perplexity": {"cut": None}, "intervals": [[1.0, None]]}
    assert json.loads(capsys.readouterr().out, parse_constant=_no_constant) == plain
    TrainedTensors({}, "", facts).write(tmp_path, ())
    text = (tmp_path / "healing.json").read_text()
    assert json.loads(text, parse_constant=_no_constant) == {**plain, "tensors": {}}


def test_every_command_with_json_is_on_the_page():
    source = Path(run_checkpoint.__file__).parents[1] / "cli" / "commands"
    for name in COMMANDS:
        code = (source / f"{name}.py").read_text(encoding="utf-8")
        assert ("JsonOption" in code) == (name in TABLES), name


def test_differences_are_noticed():
    node = documented("score")
    right = {"perplexity": 9.0, "low": None, "high": 10}
    assert not list(differences(node, right))
    assert list(differences(node, right | {"new": 1})) == ["new isn't on the page"]
    assert list(differences(node, right | {"low": "8"})) == ["low: '8' is not number or null"]
    assert list(differences(node, {"perplexity": 9.0, "low": 8.0})) == ["high is missing"]
    node = documented("preview")
    wrong = dict.fromkeys(("layers", "parameters"), 1)
    assert "before.bytes is missing" in list(differences(node, {"before": wrong}))
    assert "plan: null is not string" in list(differences(node, {"plan": None}))
