"""A board of numbers for a healing run or its estimated cost: tiles, a table, a sample of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.widgets.html_component import LiveHTML
from surgery.numbers import perplexity, scaled

if TYPE_CHECKING:
    from surgery.healing import CostEstimate, EvalResult, HealingRun
    from surgery.operation import Operation

_LONGEST = 300  # characters of what the patient writes


class HealBoard(LiveHTML):
    """The value is what a function of this module returns; empty shows nothing."""

    stem = "heal_board"


def of_start(what: str, share: float | None, evaluations: list[EvalResult]) -> dict:
    """What is done before the first step, and base and cut once they are evaluated. `share` is from
    0 to 1, or None if it isn't known."""
    numbers = [
        _number(
            "Before the first step",
            "The weights are loaded, base and cut are evaluated on held-out text, and the training "
            "text is prepared.",
            what,
            "" if share is None else f"{100 * share:.0f} %",
        )
    ]
    if not evaluations:
        return {"numbers": numbers}
    first = evaluations[0]
    cut = _number(
        "Perplexity: base, cut",
        f"On {first.tokens:,} tokens of held-out text. Lower is better. The range is the cut's "
        "95 % interval.",
        f"{perplexity(first.base.value)} → {perplexity(first.cut.value)}",
        f"cut: {perplexity(first.cut.low)} to {perplexity(first.cut.high)}",
    )
    return {"numbers": [*numbers, cut], "quote": _one_line(first.text)}


def of_error(message: str) -> dict:
    """Why there is no estimate."""
    return {"message": message, "failed": True}


def of_note(message: str) -> dict:
    """What to do before there can be an estimate."""
    return {"message": message, "failed": False}


def of_run(run: HealingRun) -> dict:
    """Where a run stands."""
    steps = f" of {run.steps:,}" if run.steps else ""
    pace = [f"loss {run.losses[-1]:.4f}"] if run.losses else []
    pace += [f"{run.speed:,.0f} tokens/s"] if run.speed else []
    hint = "The loss of the last step's batch, before its update."
    numbers = [_number("Step", hint, f"{run.step:,}{steps}", ", ".join(pace))]
    if not run.evaluations:
        return {"numbers": numbers}
    result = run.evaluations[-1]
    return {"numbers": [*numbers, *_evaluated(result)], "quote": _one_line(result.text)}


def of_healed(operation: Operation) -> dict:
    """What the board adds once a run has ended: which patient was healed, for the whole page."""
    return {"healed": dict(zip(("spec", "plan", "key"), operation.key, strict=True))}


def _evaluated(result: EvalResult) -> list[dict]:
    rows = [
        _number(
            "Perplexity: base, cut, now",
            f"On {result.tokens:,} tokens of held-out text. Lower is better. The range is the 95 % "
            "interval of the last evaluation.",
            " → ".join(perplexity(x.value) for x in (result.base, result.cut, result.now)),
            f"after step {result.step:,}: {perplexity(result.now.low)} to "
            f"{perplexity(result.now.high)}",
        )
    ]
    if result.recovered:
        share, low, high = result.recovered
        rows.append(
            _number(
                "Recovered",
                "Share of the increase in log perplexity that healing has undone, with its 95 % "
                "interval.",
                f"{100 * share:.0f} %",
                f"{100 * low:.0f} to {100 * high:.0f} % of what the cut lost",
            )
        )
    return rows


def of_cost(cost: CostEstimate, repaired: bool = False) -> dict:
    """What a run would take; `repaired` says that it begins from a repaired patient."""
    minutes = 60 * cost.hours
    numbers = [
        _number(
            "Estimated time",
            "Assumes a share of this machine's speed at matrix products: 80 % for float32 on a "
            "CPU, else 40 %. Minutes include the time to generate text; a number of steps doesn't.",
            f"{minutes:,.1f} minutes" if minutes >= 0.1 else f"{60 * minutes:,.1f} seconds",
            f"for {cost.tokens:,} tokens" + (", from the repaired patient" if repaired else ""),
        ),
        _number(
            "Trainable parameters",
            "All other weights are shared with the base and stay frozen.",
            f"{cost.trained / 1e6:,.2f} M",
            f"of {cost.parameters / 1e6:,.2f} M parameters",
        ),
        _number(
            "Compute",
            "6·N·D for the patient plus 2·N·D for the teacher, if there is one: an upper bound.",
            scaled(cost.flops, "FLOPs"),
            "at most",
        ),
        _number(
            "Memory",
            "The sum of the components below.",
            f"{cost.bytes / 1e6:,.0f} MB",
            "fits in memory" if cost.fits else "does not fit in memory",
        ),
    ]
    most = max(cost.memory.values())
    rows = [
        [name, f"{size / 1e6:,.0f} MB", round(size / most, 4)] for name, size in cost.memory.items()
    ]
    return {"numbers": numbers, "rows": rows}


def _number(label: str, hint: str, value: str, below: str) -> dict:
    return {"label": label, "hint": hint, "value": value, "below": below}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
