"""What `skills` prints: a row for each skill, and how much of greedy text repeats itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from surgery.numbers import percent

if TYPE_CHECKING:
    from surgery.skills import Change, Repetition, SkillChange

Texts = Sequence["Repetition"] | None  # of base and patient; None if none were generated


def skills_report(changes: Sequence[SkillChange], texts: Texts) -> Iterator[Table | str]:
    """A table and sentences for a terminal of 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("skill", no_wrap=True)
    for heading in ("chance", "base", "patient", "95 % CI", "nats", "95 % CI"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for change in changes:
        low, high = change.patient.interval
        table.add_row(
            change.skill.label,
            percent(change.base.chance),
            percent(change.base.accuracy),
            percent(change.patient.accuracy),
            f"{100 * low:.0f} to {100 * high:.0f}",
            *_cells(change.margin),
            change.verdict,
            style="dim" if change.verdict == "at chance" else "",
        )
    yield table
    yield (
        "\nchance, base, patient: share of items that are right. nats: change of the mean\n"
        "margin, ln p(right) − ln p(best wrong), paired over the items. at chance: the\n"
        "base isn't clearly above chance. weaker: margin or accuracy fell by more than chance;\n"
        "lost: also, the patient isn't clearly above chance."
    )
    if texts:
        base, patient = (_share(one.mean) for one in texts)
        yield f"\nRepeated 4-grams in greedy text: base {base}, patient {patient}."


def _cells(change: Change) -> tuple[str, str]:
    """The change and its interval."""
    if not math.isfinite(change.mean):
        return "NaN", ""
    mean, low, high = map(_nats, (change.mean, change.low, change.high))
    return mean, f"{low} to {high}"


def _nats(value: float) -> str:
    return f"{value:+.2f}" if abs(value) < 10 else f"{value:+.1f}"


def _share(share: float | None) -> str:
    return "none" if share is None else percent(share)
