"""Evaluate a base and its patient on the same tasks of lm-eval, and compare them item by item."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat, TypeGuard

from surgery.errors import SurgeryError, one_line
from surgery.optional import require

from .download_counts import disable_download_counts

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.patient import Patient

_Z = 1.96  # standard errors on either side of a 95 % interval
_NO_FILTER = "none"  # lm-eval's name for answers as they came


class Score(NamedTuple):
    """A value in the metric's unit, and its standard error; None if lm-eval gives none."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Result:
    """One metric of one `task`, or of a group of tasks, by lm-eval's names.

    If lm-eval applied a filter, it follows the `metric` after a comma: `exact_match,strict-match`.
    `higher_is_better` is None if lm-eval doesn't say. `base` and `patient` have lm-eval's standard
    errors. `difference` is patient − base. Both answer the same items, so its standard error is
    that of the mean of their differences, which is smaller than the two scores' errors suggest. It
    is None for metrics that are not a mean over items, and for groups.
    """

    task: str
    metric: str
    higher_is_better: bool | None
    base: Score
    patient: Score
    difference: Score

    @property
    def drop(self) -> tuple[float, float] | None:
        """(drop, margin): by how much the patient is worse, in the metric's unit, and half the
        width of the 95 % interval around it (1.96 standard errors). None without a standard error
        of the difference, or if it isn't known which value is better."""
        change, error = self.difference
        if error is None or self.higher_is_better is None:
            return None
        return (-change if self.higher_is_better else change), _Z * error


def evaluate(
    base: Base,
    patient: Patient | Base,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    batch_size: int = 1,
) -> list[Result]:
    """Evaluate a base and a patient on tasks of lm-eval, with its defaults and its seeds. The
    patient may be a saved one that was opened as a base.

    `tasks` are names of tasks, groups or tags, or patterns of them. `include_path` is a folder with
    more tasks, `limit` the number of items of each task, from its first (None: all), and
    `batch_size` the number of requests that run through a model at once. Tasks whose data is on
    this machine need no network. Returns a result for each metric of each task. Raises
    `SurgeryError` if lm-eval isn't installed, for unknown tasks, and for errors within lm-eval.
    """
    require("lm_eval", "Evaluation")
    from lm_eval.tasks import TaskManager

    from surgery.base import Base

    disable_download_counts()
    manager = TaskManager(include_path=str(include_path) if include_path else None)
    for name in tasks:
        if not manager.match_tasks([name]):
            raise SurgeryError(
                f"lm-eval has no task “{name[:80]}”. `lm_eval ls tasks` lists them; a folder with "
                "tasks of your own is read if --include-path names it."
            )
    names = manager.match_tasks(list(tasks))
    own_tokenizer = patient.tokenizer if isinstance(patient, Base) else patient.base.tokenizer
    one, two = (
        _run(model, tokenizer, names, manager, limit, batch_size)
        for model, tokenizer in ((base.model, base.tokenizer), (patient.model, own_tokenizer))
    )
    return list(compared(one, two))


def _run(
    model: Any, tokenizer: Any, tasks: list[str], manager: Any, limit: int | None, batch_size: int
) -> Mapping[str, Any]:
    from lm_eval import simple_evaluate

    from .model import LoadedLM

    try:
        return simple_evaluate(
            LoadedLM(model, tokenizer, batch_size=batch_size),
            tasks=tasks,
            limit=limit,
            task_manager=manager,
        )
    except SurgeryError:
        raise
    except Exception as error:  # tasks are code and data of many people
        raise SurgeryError(
            f"lm-eval can't evaluate {', '.join(tasks)[:80]}: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from error


def compared(base: Mapping[str, Any], patient: Mapping[str, Any]) -> Iterator[Result]:
    """Compare what lm-eval's `simple_evaluate` returned for a base and for a patient, on the same
    tasks and items."""
    for task, values in base["results"].items():
        for key in values:
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not _is_number(values[key]):
                continue
            one, two = (_score(found["results"][task], metric, chosen) for found in (base, patient))
            before, after = (_items(found, task, metric, chosen) for found in (base, patient))
            paired = _paired(before, after, one.value, two.value)
            yield Result(
                task,
                metric if chosen == _NO_FILTER else key,
                base["higher_is_better"].get(task, {}).get(metric),
                one,
                two,
                Score(two.value - one.value, paired),
            )


def _score(values: Mapping[str, Any], metric: str, chosen: str) -> Score:
    stderr = values.get(f"{metric}_stderr,{chosen}")  # may be “N/A”
    value = float(values[f"{metric},{chosen}"])
    return Score(value, float(stderr) if _is_number(stderr) else None)


def _items(result: Mapping[str, Any], task: str, metric: str, chosen: str) -> dict[Any, Any]:
    """{item: the metric's value for it}"""
    samples = result.get("samples", {}).get(task, ())
    return {s["doc_id"]: s[metric] for s in samples if s["filter"] == chosen and metric in s}


def _paired(
    base: Mapping[Any, Any], patient: Mapping[Any, Any], one: float, two: float
) -> float | None:
    """The standard error of the mean difference of items, if the two scores are their means."""
    if len(base) < 2 or base.keys() != patient.keys():
        return None
    if not all(map(_is_number, (*base.values(), *patient.values()))):
        return None
    if not all(
        math.isclose(fmean(items.values()), mean, abs_tol=1e-9)
        for items, mean in ((base, one), (patient, two))
    ):
        return None
    return stdev(patient[item] - base[item] for item in base) / math.sqrt(len(base))


def _is_number(value: Any) -> TypeGuard[SupportsFloat]:
    return hasattr(value, "__float__")  # NumPy's, too, and no text
