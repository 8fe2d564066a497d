"""The logit lens: what each layer would predict if it were the last.

The model's own final norm and head are applied to what each layer returned (nostalgebraist,
“interpreting GPT: the logit lens”, 2020). No layer is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from surgery.architecture.inspect.hooks import (
    copied,
    hidden_out,
    layers_of,
    replaced,
    standing_in,
    states_refused,
    watched,
)
from surgery.architecture.inspect.layer_list import embedding_table
from surgery.base import Base
from surgery.errors import Refused, SurgeryError
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .comparison import Guess, TokenTexts
from .passes import run

if TYPE_CHECKING:
    from surgery.patient import Patient

MOST_TOKENS = 512


def logit_lens(
    of: Base | Patient, ids: Sequence[int], top: int = 1, progress: Progress = silent
) -> list[list[tuple[Guess, ...]]]:
    """The `top` most likely next tokens: rows by layer in running order, columns by position in
    `ids`. The last row is the model's own prediction. Empty for layers that text doesn't run.

    Raises `SurgeryError`, and `Refused` where more than the last layer reaches the model's head.
    """
    if not 1 <= len(ids) <= MOST_TOKENS:
        raise SurgeryError(f"The logit lens takes 1 to {MOST_TOKENS} tokens, not {len(ids):,}.")
    patient = of.operate(Plan.whole(of.depth)) if isinstance(of, Base) else of.again()
    base, plan, model = patient.base, patient.plan, patient.model  # its layers will be replaced
    base.check_tokens(ids)
    layers = layers_of(base.anatomy, model)
    if layers is None:
        raise states_refused()
    tokens = torch.tensor([list(ids)], device=embedding_table(model).device)
    outputs: dict[int, Any] = {}
    with watched(layers, lambda p, _, output: outputs.__setitem__(p, copied(output))):
        predicted = run(model, tokens)
    states = {p: s for p, out in outputs.items() if (s := hidden_out(out)) is not None}
    if not states or len(states) < len(outputs) or len({s.shape for s in states.values()}) > 1:
        raise states_refused()
    last, text = max(states), TokenTexts(base)
    rows: list[list[tuple[Guess, ...]]] = []
    for p in range(len(plan)):
        progress("Applying the logit lens", p, len(plan))
        if p not in outputs:
            rows.append([() for _ in ids])
            continue
        # Every layer returns this one's states, so that nothing else can reach the head.
        with standing_in(layers, {q: replaced(outputs[q], states[p]) for q in outputs}):
            logits = run(model, tokens)
        if p == last and not torch.equal(logits, predicted):
            raise Refused(
                "This model predicts from more than what its last layer returns, so the logit "
                "lens doesn't apply to it."
            )
        rows.append(text.guesses(logits[0].float().log_softmax(-1), top))
    progress("Applying the logit lens", len(plan), len(plan))
    return rows
