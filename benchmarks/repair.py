"""What repairs bring back on the bundled model, and how long they take.

    python -m benchmarks repair             four cuts, refit alone, as a user would run it
    python -m benchmarks repair --curve     the first of them over the tokens of calibration text
    python -m benchmarks repair --study     sizes and places of cuts, repeats, and every method

Each row gives perplexity on held-out text with its 95 % interval, the share of the lost log
perplexity that came back with its interval, and seconds. The repair's text is written anew for the
first row unless --keep-text is given: it is kept in the cache for the others. With --heal M, each
cut is also healed for M minutes, from the cut and from the refit, whose repair is in the minutes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from os import environ
from pathlib import Path

from surgery import Base, Plan, Refused, RepairSettings, repair
from surgery.healing import Evaluator, HealingRun, Settings
from surgery.healing.evaluation import recovered

GOAL = ("0:13, 17:30", "0:12, 18:30", "0:20, 26:30", "0:5, 9:30")
TOKENS = (2048, 4096, 8192, 16_384, 32_768, 65_536)
SIZES, PLACES = (2, 4, 6, 8), (6, 13, 20)  # layers dropped, and the middle of what is dropped
REPEATS = ("0:22, 8:30", "0:15, 11:30", "0:15, 11:15*2, 15:30")


def cuts() -> Iterator[tuple[str, str]]:
    """(name, plan) of the study's cuts, and for each size a random one as the control."""
    for size in SIZES:
        for place in PLACES:
            start = place - size // 2
            yield f"{start}:{start + size} dropped", f"0:{start}, {start + size}:30"
        gone = random.Random(size).sample(range(1, 29), size)
        kept = Plan.of((i for i in range(30) if i not in gone), 30)
        yield f"{size} at random dropped", str(kept)


def line(name: str, score, share, seconds: float) -> None:
    """Print one row."""
    back = "" if share is None else f"{share[0]:6.1%} ({share[1]:.1%} to {share[2]:.1%})"
    ppl = f"{score.perplexity:8.2f} ({score.low:.2f} to {score.high:.2f})"
    print(f"  {name:<24}{ppl:<30}{back:<26}{seconds:7.1f} s", flush=True)


def measure(base: Base, evaluator: Evaluator, name: str, text: str, methods, minutes: float):
    """Print the rows of one plan."""
    plan = Plan.parse(text, base.depth)
    whole = evaluator.score(base.model)
    cut = evaluator.score(base.operate(plan).model)
    print(f"{name}: {plan}", flush=True)
    line("base", whole, None, 0)
    line("as it is", cut, None, 0)
    start = None
    for method in methods:
        begun = time.monotonic()
        try:
            one = repair(base, plan, RepairSettings(method), evaluator=Evaluator.of(base))
        except Refused as error:
            print(f"  {method:<24}refused: {str(error)[:90]}")
            continue
        seconds = time.monotonic() - begun
        score = evaluator.score(one.model)
        line(method + ("" if one.helps else ", no better"), score, one.recovered, seconds)
        start = one if method == "refit" and one.helps else start
    for begin in (None, start) if minutes and start else (None,) if minutes else ():
        with tempfile.TemporaryDirectory() as folder:
            begun = time.monotonic() - (begin.facts["seconds"] if begin else 0)
            run = HealingRun(
                base,
                begin.plan if begin else plan,
                Settings(minutes=minutes),
                Path(folder) / "run",
                start=begin,
            )
            list(run)
            score = evaluator.score(run.result().model)
            what = f"healed from {'refit' if begin else 'cut'}"
            line(what, score, recovered(whole, cut, score), time.monotonic() - begun)


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
    parser.add_argument("--study", action="store_true", help="All cuts, repeats and methods.")
    parser.add_argument("--heal", type=float, default=0, help="Also heal for so many minutes.")
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
        if options.plan or not options.study:
            for text in options.plan or GOAL:
                methods = ("refit",) if not options.study else ("alpha", "lstsq", "refit")
                measure(base, evaluator, "cut", text, methods, options.heal)
            return
        for name, text in cuts():
            measure(base, evaluator, name, text, ("alpha", "lstsq", "refit"), options.heal)
        for text in REPEATS:
            measure(base, evaluator, "repeated", text, ("damped", "lstsq", "refit"), options.heal)
