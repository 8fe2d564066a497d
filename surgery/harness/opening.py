"""Open the patient that a harness's model arguments describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgery.patient import Patient


def open_patient(base: str, plan: str | int, repair: str | None = None) -> Patient:
    """Open `base`, operate on it by `plan`, and repair the patient if a method is named.

    The plan is in notation, a preset, or @recipe.yaml. It may have “;” in place of “,”, since
    lm-eval splits its arguments at commas; a plan of one layer may be a number, which is how
    lm-eval reads it. `repair` is a key of `surgery.repairing.METHODS`; its result is used whether
    or not it helps. Raises `SurgeryError`.
    """
    from surgery.base import Base
    from surgery.facts import read_plan

    opened, text = Base.open(str(base)), str(plan)
    if text.startswith("@"):
        from surgery.recipes.recipe import layer_tensors, read_file

        recipe = read_file(Path(text[1:]).expanduser())
        recipe.check_adapters(dict.fromkeys(recipe.names.values(), bool(opened.source.merged)))
        wanted = recipe.plan(opened.depth, layer_tensors(opened))
    else:
        wanted = read_plan(text.replace(";", ","), opened)
    if repair is None:
        return opened.operate(wanted)
    from surgery.repairing import RepairSettings
    from surgery.repairing import repair as repaired

    return repaired(opened, wanted, RepairSettings(method=str(repair)))
