"""The logit lens: what each layer would say if it were the last.

What a layer returns is handed on as if the last layer had returned it, and the model's own final
norm and head do the rest (nostalgebraist, “interpreting GPT: the logit lens”, 2020). No layer is
computed twice. Knows nothing of norms or heads; the model runs them.
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
from surgery.base import Base
from surgery.errors import Refused, SurgeryError
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .compare import Guess, _Text
from .forward_cache import run

if TYPE_CHECKING:
    from surgery.patient import Patient

MOST_TOKENS = 512


def logit_lens(
    of: Base | Patient, ids: Sequence[int], top: int = 1, progress: Progress = silent
) -> list[list[tuple[Guess, ...]]]:
    """Rows by layer in running order, columns by position in `ids`: the `top` likeliest next
    tokens there. The last row is what the model says. Empty for layers that text doesn't run.

    Raises `SurgeryError`, and `Refused` where the model's end looks at more than the last layer.
    """
    if not 1 <= len(ids) <= MOST_TOKENS:
        raise SurgeryError(f"The logit lens takes 1 to {MOST_TOKENS} tokens, not {len(ids):,}.")
    patient = of.operate(Plan.whole(of.depth)) if isinstance(of, Base) else of.again()
    base, plan, model = patient.base, patient.plan, patient.model  # its layers will be replaced
    base.check_tokens(ids)
    layers = layers_of(base.anatomy, model)
    if layers is None:
        raise states_refused()
    device = model.get_input_embeddings().weight.device
    tokens = torch.tensor([list(ids)], device=device)
    kept: dict[int, Any] = {}
    with watched(layers, lambda p, _, output: kept.__setitem__(p, copied(output))):
        said = run(model, tokens)
    last = max(kept, default=-1)
    states = {p: hidden_out(output) for p, output in kept.items()}
    if last < 0 or any(s is None or s.shape != states[last].shape for s in states.values()):
        raise states_refused()
    text, rows = _Text(base), []
    for p in range(len(plan)):
        progress("Asking every layer", p, len(plan))
        if p not in kept:
            rows.append([() for _ in ids])
            continue
        # Every layer stands for the one asked, so that nothing else can reach the end.
        with standing_in(layers, {q: replaced(kept[q], states[p]) for q in kept}):
            logits = run(model, tokens)
        if p == last and not torch.equal(logits, said):
            raise Refused(
                "What this model says follows from more than what its last layer returns, so a "
                "layer can't be asked alone."
            )
        rows.append(text.guesses(logits[0].float().log_softmax(-1), top))
    progress("Asking every layer", len(plan), len(plan))
    return rows
