"""Refuse recipes of merge methods other than passthrough, with the mergekit command that runs them.

They compute new weights from several models, layer by layer, so they contain no plan. What mergekit
writes is a model like any other, and can be a base here.
"""

from __future__ import annotations

import re
import shlex
from difflib import get_close_matches
from pathlib import Path

from surgery.errors import PlanError, Refused, SurgeryError

PASSTHROUGH = "passthrough"
# Of mergekit 0.1.5, in the order of its guide.
MERGES = (
    *("linear", "slerp", "nuslerp", "multislerp", "karcher", "task_arithmetic", "ties"),
    *("dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties"),
    *("sce", "ram", "ramplus_tl", "model_stock", "nearswap", "arcee_fusion"),
)
_VERSION = "0.1.5"


def refusal(method: object, file: Path | None = None) -> SurgeryError:
    """The error for a recipe of a method that isn't passthrough. `file` holds the recipe, if it is
    known."""
    if not isinstance(method, str):
        return PlanError("merge_method has to be one name, such as passthrough.")
    opens = "OUT then opens here as a base: `python -m surgery inspect OUT`."
    if method in MERGES:
        return Refused(
            f"merge_method {method} computes new weights from those of several models, which isn't "
            "layer surgery: only passthrough recipes are read here. mergekit does it: "
            f"`{_command(file)}`. {opens}"
        )
    close = get_close_matches(method.lower(), (PASSTHROUGH, *MERGES), 1)
    meant = f" Did you mean {close[0]}?" if close else ""
    return Refused(
        f"merge_method “{method[:40]}” is unknown: mergekit {_VERSION} has none of that name."
        f"{meant} Only passthrough recipes are read here. If another version has it: "
        f"`{_command(file)}`. {opens}"
    )


def check_is_plan(text: str) -> None:
    """Raise `SurgeryError` if the text of a plan is a recipe. The page's field for plans has one
    line, so the recipe may have lost its line breaks, and with them its meaning."""
    if not re.search(r"\b(slices|models|merge_method)\s*:", text):
        return
    found = re.search(r"\bmerge_method\s*:\s*[\"']?([\w-]+)", text)
    if found and found[1] != PASSTHROUGH:
        raise refusal(found[1])
    raise PlanError(
        "This is a recipe that has lost its line breaks. Paste it again as a whole, or write the "
        "plan in notation, such as 0:13, 17:30. `python -m surgery preview BASE @recipe.yaml` "
        "reads the recipe and prints its plan."
    )


def _command(file: Path | None) -> str:
    name = "RECIPE.yml" if file is None else str(file)
    # As an option it would be misread.
    return f"mergekit-yaml {shlex.quote(f'./{name}' if name.startswith('-') else name)} OUT"
