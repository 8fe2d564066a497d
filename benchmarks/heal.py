"""What healing brings back: the bundled model without layers 13 to 16, distilled from the whole one
on text that it writes itself, and judged by texts that neither of them was trained on here.

A run of many minutes. It goes on where it was stopped; its folder is the first argument. Prints the
table and writes docs/explanation/heal-curve.svg.
"""

import json
import math
import shutil
import sys
import time
from pathlib import Path

from surgery import Base, Plan
from surgery.healing import EvalResult, HealingRun, Settings

PLAN = "0:13, 17:30"
SETTINGS = Settings(minutes=14, batch=1, default_text="own")
DOCS = Path(__file__).parents[1] / "docs" / "explanation"


def drawing(losses: list[float], evaluations: list[EvalResult]) -> str:
    """The loss of each step and the perplexity at each look, as an SVG of its own."""
    left, right, top, low, high = 60, 660, 30, 250, 300
    steps = max(len(losses), 1)
    base, cut = evaluations[0].base.value, evaluations[0].cut.value
    reach = [
        value for evaluation in evaluations for value in (evaluation.now.low, evaluation.now.high)
    ]
    ends = math.log(min(base, *reach)) - 0.1, math.log(max(cut, *reach)) + 0.1

    def x(step: float) -> float:
        return left + (right - left) * step / steps

    def y(perplexity: float) -> float:
        return low - (low - top) * (math.log(perplexity) - ends[0]) / (ends[1] - ends[0])

    most = max(losses)
    curve = " ".join(
        f"{x(i + 0.5):.1f},{low - (low - top) * v / most:.1f}" for i, v in enumerate(losses)
    )
    line = " ".join(f"{x(k.step):.1f},{y(k.now.value):.1f}" for k in evaluations)
    marks = "".join(
        f'<line x1="{x(k.step):.1f}" x2="{x(k.step):.1f}" y1="{y(k.now.low):.1f}" '
        f'y2="{y(k.now.high):.1f}" stroke="#2a6f97"/>'
        f'<circle cx="{x(k.step):.1f}" cy="{y(k.now.value):.1f}" r="3.5" fill="#2a6f97"/>'
        + (
            f'<text x="{x(k.step) + 6:.1f}" y="{y(k.now.value) - 6:.1f}">{k.now.value:.1f}</text>'
            if then is None or x(then.step) - x(k.step) > 30  # the last two may lie side by side
            else ""
        )
        for k, then in zip(evaluations, [*evaluations[1:], None], strict=True)
    )
    rules = "".join(
        f'<line x1="{left}" x2="{right}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#888" '
        f'stroke-dasharray="4 4"/><text x="{right + 6}" y="{y(v) + 4:.1f}">{word} {v:.1f}</text>'
        for word, v in (("base", base), ("cut", cut))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {high}" width="760" '
        f'font-family="sans-serif" font-size="12" fill="#444"><rect width="760" height="{high}" '
        f'fill="#fff"/><polyline points="{curve}" fill="none" stroke="#e0a458"/>'
        f'<polyline points="{line}" fill="none" stroke="#2a6f97" stroke-width="2"/>{rules}{marks}'
        f'<text x="{left}" y="18" fill="#2a6f97">perplexity on held-out text, log scale, with 95 % '
        f'intervals</text><text x="{left + 380}" y="18" fill="#c07c28">training loss (KL), 0 to '
        f"{most:.2f}</text>"
        f'<text x="{left}" y="{low + 20}">step 0</text>'
        f'<text x="{right - 40}" y="{low + 20}">step {steps}</text></svg>\n'
    )


def main() -> None:
    """Run it, print the table, draw the curve."""
    begun = time.monotonic()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("heal-benchmark")
    base = Base.open("bundled")
    plan = Plan.parse(PLAN, base.depth)
    run = HealingRun(base, plan, SETTINGS, folder)
    print(f"{(time.monotonic() - begun) / 60:.1f} min until the first step")
    print("step   loss   held-out perplexity    recovered of log perplexity   core-s", flush=True)
    for evaluation in run.evaluations:
        show(evaluation, None)
    for event in run:
        if event.evaluation:
            show(event.evaluation, event.loss)
    healed = run.result()
    print(json.dumps(healed.facts["perplexity"], indent=1))
    minutes, worked = (time.monotonic() - begun) / 60, time.process_time()
    print(f"{minutes:.1f} min in all, {worked:.0f} core-seconds of this process")
    (DOCS / "heal-curve.svg").write_text(drawing(run.losses, run.evaluations), encoding="utf-8")
    healed.save(folder / "model", overwrite=True)
    for words in ("Once upon a time", "The capital of France is"):
        for name, patient in (
            ("base", base.operate(Plan.whole(base.depth))),
            ("cut", base.operate(plan)),
            ("healed", healed),
        ):
            text = "".join(patient.stream(words, max_new_tokens=32, greedy=True))
            print(f"{name:7s}{words}{text!r}")
    shutil.rmtree(folder / "model")


def show(evaluation: EvalResult, loss: float | None) -> None:
    """A line of the table."""
    share = evaluation.recovered or (0.0, 0.0, 0.0)
    print(
        f"{evaluation.step:4d}  {'' if loss is None else format(loss, '.3f'):>6s}  "
        f"{evaluation.now.value:6.2f} ({evaluation.now.low:.2f} to {evaluation.now.high:.2f})   "
        f"{share[0]:6.1%} ({share[1]:.1%} to {share[2]:.1%})   {time.process_time():8.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
