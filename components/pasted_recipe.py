"""Make a mergekit recipe the plan, when one is pasted into the plan's box.

The plan is applied to the open base, since a recipe's names of models often stand for folders on
another machine. A message lists what else the recipe asks for, which the page doesn't do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from html import escape

import gradio as gr

from surgery import PlanError, Refused

from .parts import PageParts
from .services.services import Services
from .sessions.session import Session

_LONGEST = 100_000  # characters: more than a slice for each of 500 layers takes


def wire(parts: PageParts) -> None:
    """Tie it to the strip, whose box sends what is pasted. Call it before the panels that follow
    edits are wired."""
    parts.changes_plan(parts.strip.recipe, partial(notation, parts.services))


def notation(services: Services, session: Session, request: Mapping) -> str:
    """The plan of a recipe for the session's base; nothing of the request is trusted. Raises
    `SurgeryError`."""
    text = str(request.get("text", ""))
    if len(text) > _LONGEST:
        raise PlanError(f"A pasted recipe can have at most {_LONGEST:,} characters.")
    if not session.spec:
        raise PlanError("Open a base first.")
    from surgery.recipes.recipe import layer_tensors, read

    recipe = read(text)
    if len(recipe.names) > 1:
        raise Refused(
            f"The recipe stacks layers of {len(recipe.names)} models, and the page edits one. "
            "Make the stack with `python -m surgery save BASE @recipe.yaml OUT`, then open OUT "
            "here as a base."
        )
    base = services.bases.get(session)
    recipe.check_adapters({"": bool(base.source.merged)})
    plan = str(recipe.plan(base.depth, layer_tensors(base)))
    words = [f"The recipe is for {recipe.model[:120]}; its plan is applied to {base.name}."]
    if recipe.saved_dtype:
        words.append(f"It asks for {recipe.saved_dtype}: choose the data type in Save.")
    gr.Info(escape(" ".join([*words, *recipe.notes])))  # may be HTML, and is shown as such
    return plan
