"""Numbers of a run of healing, or of what one would cost: a board of figures, a table, a quotation.

Knows how both become plain values; drawing is JavaScript's. What models write reaches the page as
text only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.widgets.html_component import LiveHTML

if TYPE_CHECKING:
    from surgery.healing import Cost, Healing, Look

_LONGEST = 300  # characters of what the patient writes


class HealBoard(LiveHTML):
    """The value is what `of_run` or `of_cost` returns; empty shows nothing."""

    stem = "heal_board"


def of_run(run: Healing) -> dict:
    """Where a run stands."""
    steps = f" of {run.steps:,}" if run.steps else ""
    pace = [f"loss {run.losses[-1]:.4f}"] if run.losses else []
    pace += [f"{run.speed:,.0f} tokens/s"] if run.speed else []
    hint = "The loss is of the last step's batch, before the step."
    numbers = [_number("Step", hint, f"{run.step:,}{steps}", ", ".join(pace))]
    if not run.looks:
        return {"numbers": numbers}
    look = run.looks[-1]
    return {"numbers": [*numbers, *_looked(look)], "quote": _one_line(look.text)}


def _looked(look: Look) -> list[dict]:
    found = [
        _number(
            "Perplexity: base, cut, now",
            f"On {look.tokens:,} tokens of text that is not trained on. Lower is better; the range "
            "is the 95 % interval of so small a text.",
            f"{look.base.value:,.2f} → {look.cut.value:,.2f} → {look.now.value:,.2f}",
            f"after step {look.step:,}: {look.now.low:,.2f} to {look.now.high:,.2f}",
        )
    ]
    if look.recovered:
        share, low, high = look.recovered
        found.append(
            _number(
                "Won back",
                "Of the log perplexity that the cut lost, with its 95 % interval.",
                f"{share:.0%}",
                f"{low:.0%} to {high:.0%} of what the cut lost",
            )
        )
    return found


def of_cost(found: Cost) -> dict:
    """What a run would take."""
    minutes = 60 * found.hours
    numbers = [
        _number(
            "Time here, an estimate",
            "From the speed of matrix products on this machine, 40 % of which is taken to be "
            "reached; text that the base writes comes on top.",
            f"{minutes:,.1f} minutes" if minutes >= 0.1 else f"{60 * minutes:,.1f} seconds",
            f"for {found.tokens:,} tokens",
        ),
        _number(
            "Trains",
            "All other weights are the base's own, and stay as they are.",
            f"{found.trained / 1e6:,.2f} M",
            f"of {found.parameters / 1e6:,.2f} M parameters",
        ),
        _number(
            "Compute",
            "6·N·D of the patient, and 2·N·D of the teacher where there is one: an upper bound.",
            f"{found.flops:.3g}",
            "FLOPs at most",
        ),
        _number(
            "Memory",
            "All parts below together.",
            f"{found.bytes / 1e6:,.0f} MB",
            "which fits here" if found.fits else "which does not fit here",
        ),
    ]
    most = max(found.memory.values())
    rows = [
        [name, f"{size / 1e6:,.0f} MB", round(size / most, 4)]
        for name, size in found.memory.items()
    ]
    return {"numbers": numbers, "rows": rows}


def _number(label: str, hint: str, value: str, below: str) -> dict:
    return {"label": label, "hint": hint, "value": value, "below": below}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
