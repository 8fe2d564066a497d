"""Patients in lm-evaluation-harness: `python -m tests.harness` builds an environment for it.

A tiny model answers a task of local files: as a live patient under the model `layer-surgery`, as a
saved checkpoint under lm-eval's own `hf`, and by `python -m surgery evaluate`. All give the same
numbers, down to each log-likelihood, and surgery's two programs look for no network. The
environment takes torch and transformers from the one that runs this, and installs lm-eval and the
package itself, so that its entry point is there. `--python PATH` takes one that is there already.
Most of the minutes go to lm-eval, which reads all of its tasks whenever it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TASK = "local_choice"
PLAN, SPELT = "0:2, 4:6", "0:2;4:6"
METRICS = ("acc", "acc_norm")
ITEMS = 40
CHECKS = ("entry_point", "saved", "repaired", "by_hand", "command")

_TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""

# Imported by every interpreter that has this file's folder on its path.
_NO_NETWORK = """
import os, sys

def refuse(event, arguments):
    address = arguments[-1]
    if event == "socket.getaddrinfo" or event == "socket.connect" and isinstance(address, tuple):
        with open(os.environ["CONNECTIONS"], "a") as file:
            print(event, arguments, sys.argv, file=file)
        raise OSError("there is no network here")

sys.addaudithook(refuse)
"""

# lm-eval's registry takes the package's entry point as its own code would.
_ENTRY_POINT = """
from importlib.metadata import entry_points
import lm_eval.models
from lm_eval.api.registry import get_model, model_registry
from lm_eval.models.huggingface import HFLM
point, = entry_points(group="lm_eval.models", name="layer-surgery")
model_registry.register("by-entry-point", target=point)
found = get_model("by-entry-point")
from surgery.harness import register
register()
register()
assert issubclass(found, HFLM) and found is get_model("layer-surgery")
"""

_VERSION = "import lm_eval; print('lm-eval', lm_eval.__version__)"

# What the documentation shows for Python.
_BY_HAND = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from surgery import Base, Plan
folder, plan, task = sys.argv[1:]
base = Base.open(folder)
patient = base.operate(Plan.parse(plan, base.depth))
lm = HFLM(pretrained=patient.model, tokenizer=base.tokenizer)
result = simple_evaluate(lm, tasks=[task], task_manager=TaskManager(include_path="tasks"))
print("=", json.dumps(result["results"][task], default=str))
"""


def main() -> None:
    """Print a line for everything that is compared, and exit with 1 if any differs."""
    sys.path[:0] = [str(ROOT), str(HERE)]
    parser = argparse.ArgumentParser(prog="python -m tests.harness", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--python", type=Path, help="an interpreter with lm-eval and this package")
    parser.add_argument("--lm-eval", metavar="VERSION", help="this release of it; else the newest")
    given = parser.parse_args()
    if unknown := set(given.checks) - set(CHECKS):
        parser.error(f"no such check: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="harness-") as name:
        folder = Path(name)
        python = given.python or _environment(folder / "env", given.lm_eval)
        failed, lab = 0, Lab(python.absolute(), folder)
        for check in given.checks or CHECKS:
            for what, problem in getattr(lab, check)():
                failed += bool(problem)
                print(f"{check:12} {what}: {problem or 'right'}", flush=True)
        seen = lab.connections()
        print(f"network: {seen or 'nothing looked for one'}")
    sys.exit(bool(failed or seen))


def _environment(folder: Path, version: str | None) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there = subprocess.check_output([python, "-c", ask], text=True).strip()
    (Path(there) / "outer.pth").write_text(sysconfig.get_path("purelib"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [f"lm-eval=={version}"] if version else project["optional-dependencies"]["eval"]
    install = [python, "-m", "pip", "install", "-q"]
    subprocess.run([*install, *wanted], check=True)
    subprocess.run([*install, "--no-deps", "--force-reinstall", ROOT], check=True)
    return python


class Lab:
    """The checks, with what they share in one folder: a base, a task, and checkpoints. Each yields
    what was compared and what is wrong with it, or ""."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder
        self._connections = folder / "connections"
        self.environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HOME": str(folder / "hf"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(folder / "hook"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            self.environment.pop(switch, None)  # it is by itself that nothing is looked for
        _write_base(folder / "base")
        _write_task(folder / "tasks")
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(_NO_NETWORK)

    def entry_point(self) -> Iterator[tuple[str, str]]:
        """lm-eval's registry takes the package's entry point."""
        self._python("-c", _ENTRY_POINT)
        yield "loaded by the registry", ""
        done = self._start_lm_eval("lm_eval", "layer-surgery", f"base=base,plan={SPELT}")[0]
        does = "does not look" if done.returncode else "looks"
        yield f"{self._python('-c', _VERSION).strip()} {does} for it", ""

    def saved(self) -> Iterator[tuple[str, str]]:
        """A live patient, and the checkpoint that it would be saved as."""
        stored, exact = self._live(), self._live("compute_dtype=float32")
        yield "as stored", _differs(stored, self._hf(self._saved()))
        yield "in float32", _differs(exact, self._hf(f"{self._saved()},dtype=float32"))
        yield "float32 is another dtype", "" if _differs(stored, exact) else "it is not"

    def repaired(self) -> Iterator[tuple[str, str]]:
        """The same of a repaired patient, with arguments in JSON."""
        self._python("-m", "surgery", "repair", "base", PLAN, "repaired", "--anyway")
        arguments = json.dumps({"base": "base", "plan": PLAN, "repair": "refit"})
        live = self._lm_eval("surgery.harness", "layer-surgery", arguments)
        yield "live and saved", _differs(live, self._hf("repaired"))
        yield "the repair changed it", "" if _differs(live, self._live()) else "it did not"

    def by_hand(self) -> Iterator[tuple[str, str]]:
        """HFLM(pretrained=patient.model)"""
        printed = self._python("-c", _BY_HAND, "base", PLAN, TASK)
        found, wanted = json.loads(printed.rpartition("= ")[2]), self._live()[0]
        for metric in METRICS:
            one, two = found[f"{metric},none"], wanted[f"{metric},none"]
            yield metric, "" if one == two else f"{one}, {two}"

    def command(self) -> Iterator[tuple[str, str]]:
        """python -m surgery evaluate"""
        evaluate = ("-m", "surgery", "evaluate", "base", PLAN, "--include-path", "tasks")
        stored = ("--tasks", TASK, "--compute-dtype", "stored")
        results = json.loads(self._python(*evaluate, *stored, "--json"))["results"]
        yield "metrics", "" if [r["metric"] for r in results] == list(METRICS) else str(results)
        for who, scores in (("base", self._hf("base")[0]), ("patient", self._live()[0])):
            for result in results:
                names = dict(value="{},none", stderr="{}_stderr,none")
                wanted = {k: scores[name.format(result["metric"])] for k, name in names.items()}
                same = result[who] == wanted
                yield f"{result['metric']} of the {who}", "" if same else f"{result}, {wanted}"
        errors = [result["difference"]["stderr"] for result in results]
        yield "errors of the differences", "" if all(errors) else str(errors)
        table = self._python(*evaluate, "--tasks", TASK, "--limit", "8")
        yield "the table", "" if TASK in table and "±" in table else table
        unknown = self._start(*evaluate, "--tasks", "no_such_task")
        clear = unknown.returncode == 1 and "lm-eval has no task “no_such_task”" in unknown.stderr
        yield "an unknown task", "" if clear else unknown.stderr

    def connections(self) -> str:
        """What of surgery's has looked for a network."""
        return self._connections.read_text() if self._connections.exists() else ""

    @cache  # noqa: B019  one object, as long as the process
    def _live(self, more: str = "") -> Any:
        arguments = ",".join(filter(None, (f"base=base,plan={SPELT}", more)))
        return self._lm_eval("surgery.harness", "layer-surgery", arguments)

    @cache  # noqa: B019
    def _saved(self) -> str:
        self._python("-m", "surgery", "save", "base", PLAN, "saved")
        return "saved"

    def _hf(self, pretrained: str) -> Any:
        return self._lm_eval("lm_eval", "hf", f"pretrained={pretrained}")

    def _lm_eval(self, module: str, model: str, arguments: str) -> Any:
        """(scores, samples) of a run of lm-eval's command line."""
        done, out = self._start_lm_eval(module, model, arguments)
        _check(done)
        (results,) = out.rglob("results_*.json")
        (samples,) = out.rglob("samples_*.jsonl")
        lines = samples.read_text().splitlines()
        return json.loads(results.read_text())["results"][TASK], sorted(lines)

    def _start_lm_eval(
        self, module: str, model: str, arguments: str
    ) -> tuple[subprocess.CompletedProcess, Path]:
        out = Path(tempfile.mkdtemp(dir=self.folder))
        done = self._start(
            *("-m", module, "run", "--model", model, "--model_args", arguments),
            *("--tasks", TASK, "--include_path", "tasks", "--output_path", out, "--log_samples"),
        )
        return done, out

    def _python(self, *arguments: Any) -> str:
        return _check(self._start(*arguments))

    def _start(self, *arguments: Any) -> subprocess.CompletedProcess:
        ours = str(arguments[1]).startswith("surgery")  # lm-eval itself asks the Hub for versions
        watched = {"CONNECTIONS": str(self._connections) if ours else os.devnull}
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env=self.environment | watched,
            capture_output=True,
            text=True,
        )


def _check(done: subprocess.CompletedProcess) -> str:
    """What it printed. Exits with its errors if it failed."""
    if done.returncode:
        sys.exit(f"{done.args} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _differs(one: Any, two: Any) -> str:
    """The difference between two runs: of the scores, or of the first sample that differs."""
    if one[0] != two[0]:
        return f"{one[0]}, {two[0]}"
    pairs = zip(one[1], two[1], strict=True)
    return next((f"{a}\n{b}" for a, b in pairs if a != b), "")


def _write_base(folder: Path) -> None:
    import tiny
    import torch

    # In a half, so that what is computed in float32 differs from what is computed as stored.
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


def _write_task(folder: Path) -> None:
    folder.mkdir()
    rng = random.Random(0)
    rows = []
    for _ in range(ITEMS):
        choices = [f" {rng.randrange(10 ** rng.randrange(1, 6))}" for _ in range(4)]
        row = dict(question=f"{rng.random()} is", choices=choices, answer=rng.randrange(4))
        rows.append(json.dumps(row) + "\n")
    (folder / "items.jsonl").write_text("".join(rows))
    text = _TASK.format(name=TASK, data=json.dumps(str(folder / "items.jsonl")))
    (folder / f"{TASK}.yaml").write_text(text)


if __name__ == "__main__":
    main()
