"""What repairs bring back on the bundled model, and how long they take.

    python -m benchmarks repair             four cuts, refit alone, as a user would run it
    python -m benchmarks repair --curve     the first of them over the tokens of calibration text

Each row gives perplexity on held-out text with its 95 % interval, the share of the lost log
perplexity that came back with its interval, and seconds. The repair's text is written anew for the
first row unless --keep-text is given: it is kept in the cache for the others. More cuts and
methods, and healing after a repair, are in `python -m benchmarks repair_study`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from os import environ

from surgery import Base, Plan, RepairSettings, repair
from surgery.healing import Evaluator

GOAL = ("0:13, 17:30", "0:12, 18:30", "0:20, 26:30", "0:5, 9:30")
TOKENS = (2048, 4096, 8192, 16_384, 32_768, 65_536)


def line(name: str, score, share, seconds: float) -> None:
    """Print one row."""
    back = "" if share is None else f"{share[0]:6.1%} ({share[1]:.1%} to {share[2]:.1%})"
    ppl = f"{score.perplexity:8.2f} ({score.low:.2f} to {score.high:.2f})"
    print(f"  {name:<24}{ppl:<30}{back:<26}{seconds:7.1f} s", flush=True)


def measure(base: Base, evaluator: Evaluator, text: str) -> None:
    """Print the rows of one plan."""
    plan = Plan.parse(text, base.depth)
    print(plan, flush=True)
    line("base", evaluator.score(base.model), None, 0)
    line("as it is", evaluator.score(base.operate(plan).model), None, 0)
    begun = time.monotonic()
    one = repair(base, plan, RepairSettings(), evaluator=Evaluator.of(base))
    seconds = time.monotonic() - begun
    name = "refit" + ("" if one.helps else ", no better")
    line(name, evaluator.score(one.model), one.recovered, seconds)


def curve(base: Base, evaluator: Evaluator) -> None:
    """Print what a refit brings back, and the error of its first fit, over tokens of text."""
    plan = Plan.parse(GOAL[0], base.depth)
    for tokens in TOKENS:
        begun = time.monotonic()
        one = repair(base, plan, RepairSettings(tokens=tokens), evaluator=evaluator)
        first = one.facts["fits"][0]
        left = first["error_after"] / first["error_before"]
        score = evaluator.score(one.model)
        line(f"{tokens:,} tokens", score, one.recovered, time.monotonic() - begun)
        print(f"    error of the first fit on held-out windows × {left:.3f}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curve", action="store_true", help="Over the tokens of text.")
    parser.add_argument("--plan", action="append", help="These plans instead.")
    parser.add_argument("--keep-text", action="store_true", help="Use the text in the cache.")
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        base = Base.open("bundled")
        base.load()
        evaluator = Evaluator.of(base)
        print(f"Opened and loaded in {time.monotonic() - begun:.1f} s", flush=True)
        if not options.keep_text:
            environ["LAYER_SURGERY_CACHE"] = folder
        if options.curve:
            curve(base, evaluator)
            return
        for text in options.plan or GOAL:
            measure(base, evaluator, text)
