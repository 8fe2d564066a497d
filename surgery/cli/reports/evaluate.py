"""What `evaluate` prints: the scores of a base and its patient, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from surgery.harness.evaluation import Result, Score

_ARROWS = {True: "↑", False: "↓", None: ""}


def result_table(results: Sequence[Result]) -> Table:
    """A row for each metric of each task, with standard errors after ±."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("task")
    table.add_column("metric")
    for heading in ("base", "patient", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            escape(result.task),
            f"{escape(result.metric)} {_ARROWS[result.higher_is_better]}".rstrip(),
            _score(result.base),
            _score(result.patient),
            _score(result.difference, "+"),
        )
    return table


def result_json(result: Result) -> dict[str, Any]:
    """The same values, not rounded."""
    scores = {name: getattr(result, name)._asdict() for name in ("base", "patient", "difference")}
    return {
        "task": result.task,
        "metric": result.metric,
        "higher_is_better": result.higher_is_better,
        **scores,
    }


def _score(score: Score, sign: str = "") -> str:
    error = "" if score.stderr is None else f" ± {_number(score.stderr)}"
    return f"{_number(score.value, sign)}{error}"


def _number(value: float, sign: str = "") -> str:
    """Four decimals as lm-eval writes accuracies, and two for perplexities."""
    return f"{value:{sign},.{4 if abs(value) < 10 else 2}f}"
