"""Which repair suits which cut, and what healing for five minutes adds? On the bundled model.

    python -m benchmarks repair_study            measure what isn't measured yet, and write the page
    python -m benchmarks repair_study --page     write the page alone

Two, four, six and eight layers are dropped at three places and at random, and layers are repeated
in three ways. Each is repaired by every method, and the cuts are healed from the cut and from the
refit. Healing is the command of a user with an empty cache, so the base writes its text within the
minutes. The repairs find the base's text in the cache after the first one.

Takes about three hours on two cores that do nothing else. Each figure is kept in
docs/explanation/repair-study.json when it is there, so a stopped study goes on. Writes
repair-study.md and repair-study.svg beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from surgery import Base, Plan, Refused, RepairSettings, repair
from surgery.healing import Evaluator

from . import _repair_page
from .all import machine

DOCS = Path(__file__).parents[1] / "docs" / "explanation"
SIZES, PLACES = (2, 4, 6, 8), (6, 13, 20)  # layers dropped, and the middle of what is dropped
FIRST = 4  # the size that is measured first
MINUTES = 5
HEALS = {"healed": (), "refit, healed": ("--repair", "refit")}
CUT_METHODS = ("alpha", "lstsq", "refit")
REPEAT_METHODS = ("damped", "lstsq", "refit")
REPEATS = ("0:22, 8:30", "0:15, 11:30", "0:15, 11:15*2, 15:30")


@dataclass(frozen=True)
class Cell:
    """One plan under one method, “as it is” for none. `recovered` is (share, low, high) of the lost
    log perplexity; `repaired` is the share before healing began, after `steps` of which the others
    are; `problem` says why there is no figure."""

    what: str
    plan: str
    method: str
    perplexity: float = 0.0
    low: float = 0.0
    high: float = 0.0
    recovered: tuple[float, float, float] | None = None
    seconds: float = 0.0
    steps: int = 0
    repaired: float = 0.0
    problem: str = ""


def cuts(sizes: Sequence[int] = SIZES) -> Iterator[tuple[str, str]]:
    """(name, plan) of the cuts, those of one size together, then random ones as the control."""
    for size in sizes:
        for place in PLACES:
            start = place - size // 2
            yield f"{start} to {start + size - 1}", f"0:{start}, {start + size}:30"
    for size in sizes:
        gone = random.Random(size).sample(range(1, 29), size)
        kept = Plan.of((i for i in range(30) if i not in gone), 30)
        yield f"{size} at random", str(kept)


def wanted() -> list[tuple[str, str, str]]:
    """(name, plan, method) of all cells, healing first since it takes longest."""
    cells = [
        (what, plan, heal)
        for size in sorted(SIZES, key=lambda size: size != FIRST)
        for what, plan in cuts((size,))
        if "random" not in what
        for heal in HEALS
    ]
    cells += [(what, plan, m) for what, plan in cuts() for m in ("as it is", *CUT_METHODS)]
    cells += [(plan, plan, m) for plan in REPEATS for m in ("as it is", *REPEAT_METHODS)]
    return cells


def healed(what: str, plan: str, method: str) -> Cell:
    """Run the command on an empty cache, in a process of its own, and read what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "surgery", "heal", "bundled", plan, f"{folder}/out"]
        command += ["--minutes", str(MINUTES), "--json", *HEALS[method]]
        environment = {**os.environ, "LAYER_SURGERY_CACHE": f"{folder}/cache"}
        begun = time.monotonic()
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.monotonic() - begun
    if run.returncode:
        return Cell(what, plan, method, seconds=seconds, problem=run.stderr.strip()[-300:])
    facts = json.loads(run.stdout)
    found, before = facts["perplexity"], facts.get("repair", {}).get("perplexity", {})
    return Cell(
        what,
        plan,
        method,
        found["healed"],
        *found["intervals"]["healed"],
        recovered=found["recovered_of_log_perplexity"],
        seconds=seconds,
        steps=facts["steps"],
        repaired=before.get("recovered_of_log_perplexity", [0.0])[0],
    )


def repaired(base: Base, evaluator: Evaluator, what: str, plan: str, method: str) -> Cell:
    """Repair by one method, or judge the plan as it is."""
    parsed, begun = Plan.parse(plan, base.depth), time.monotonic()
    if method == "as it is":
        model, share = base.operate(parsed).model, None
    else:
        try:
            one = repair(base, parsed, RepairSettings(method), evaluator=Evaluator.of(base))
        except Refused as error:
            return Cell(what, plan, method, problem=str(error))
        model, share = one.model, one.recovered
    seconds = time.monotonic() - begun
    score = evaluator.score(model)
    return Cell(what, plan, method, score.perplexity, score.low, score.high, share, seconds)


def measure(place: Path) -> None:
    """Measure all cells that the file at `place` lacks."""
    kept = json.loads(place.read_text()) if place.exists() else {"cells": []}
    have = {(one["plan"], one["method"]) for one in kept["cells"]}
    left = [one for one in wanted() if one[1:] not in have]
    if not left:
        return
    base = Base.open("bundled")
    base.load()
    evaluator = Evaluator.of(base)
    if not have:
        score = evaluator.score(base.model)
        whole = {"perplexity": score.perplexity, "low": score.low, "high": score.high}
        kept = {"tokens": score.tokens, "base": whole, "cells": []}
    here = machine()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LAYER_SURGERY_CACHE"] = folder
        for what, plan, method in left:
            if method in HEALS:
                cell = healed(what, plan, method)
            else:
                cell = repaired(base, evaluator, what, plan, method)
            print(f"{time.strftime('%H:%M:%S')} {cell}", flush=True)
            kept["cells"].append({**asdict(cell), "machine": here})
            place.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="Write the page alone.")
    options = parser.parse_args()
    place = DOCS / "repair-study.json"
    if not options.page:
        measure(place)
    _repair_page.write(json.loads(place.read_text(encoding="utf-8")), place)
