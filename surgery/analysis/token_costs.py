"""Which layers mattered for each token of a text: what dropping a single layer costs it.

A layer is dropped by not running it; all others stay as they are. Every token of the text is scored
in one pass, and a pass without layer i runs only the layers after i. All of these passes go through
the layers together, so that each layer's weights are read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import PreTrainedModel

from surgery.altered import Altered
from surgery.architecture.inspect.chain import Calls, Chain
from surgery.architecture.inspect.layer_list import embedding_table
from surgery.compute.contexts import many_rows
from surgery.errors import PlanError, Refused, SurgeryError
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .comparison import TokenTexts, patient_of
from .forward_cache import check_room
from .passes import cannot_run, each_logits, nll

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.patient import Patient

MOST = 1024  # tokens of prompt and text together
_ROWS = 512  # tokens that are run through a layer together: products of few rows are slow


@dataclass(frozen=True)
class TokenImportance:
    """The importance of every layer for every token of a text, in running order.

    `tokens` are those scored, as text, and `nll` their −ln p in nats. `costs[p][t]` is the increase
    of token t's −ln p without the layer at position p of `plan`, in nats: negative where the token
    becomes more likely. A row is None where the model can't be run without that layer.
    """

    plan: Plan
    tokens: tuple[str, ...]
    nll: tuple[float, ...]
    costs: tuple[tuple[float, ...] | None, ...]

    def most_needed(self, token: int, count: int = 3) -> list[tuple[int, float]]:
        """The positions whose layers token number `token` needs most, with their costs, the
        costliest first. What can't be computed, or is not a number, is left out."""
        known = [
            (p, row[token])
            for p, row in enumerate(self.costs)
            if row is not None and not np.isnan(row[token])
        ]
        return sorted(known, key=lambda pair: -pair[1])[:count]


def token_importance(
    base: Base,
    of: Plan | Patient,
    prompt_ids: Sequence[int],
    ids: Sequence[int],
    progress: Progress = silent,
) -> TokenImportance:
    """Drop each layer of a patient alone, and measure what that costs every token of a text.

    The patient is a plan's (`Plan.whole` for the base), or one given, such as a healed one. The
    tokens `ids` are scored where they follow the tokens `prompt_ids`: those of a `Stream`, or what
    `continuation` makes of a text. `progress` counts layer-forwards and may raise to stop. Where
    layers can't be run one by one, each is dropped as a plan of its own, in a whole pass. Raises
    `SurgeryError`.
    """
    prompt_ids, ids = list(prompt_ids), list(ids)
    _check(base, prompt_ids, ids)
    patient = patient_of(base, of)
    device = embedding_table(patient.model).device
    tokens = torch.tensor([[*prompt_ids, *ids]], device=device)
    last = len(ids) + 1  # the first is only what the others follow
    try:
        with many_rows(patient.model, tokens.numel()):
            chain = Chain.of(base.anatomy, patient.model, tokens, patient.plan.sources)
            if chain is None:
                passes = _whole_passes(base, patient, tokens, progress)
            else:
                check_room(base, len(patient.plan) + 1, tokens.numel(), device)
                passes = _chained_passes(base, chain, patient.model, tokens, last, progress)
            losses = [
                None if logits is None else nll(logits[:, -last:], tokens[:, -last:])
                for logits in passes
            ]
    except (RuntimeError, IndexError) as error:  # shapes that don't match, no memory
        raise cannot_run(error) from error
    whole, *dropped = losses
    assert whole is not None  # only a plan without a layer is refused
    return TokenImportance(
        plan=patient.plan,
        tokens=tuple(TokenTexts(base).tokens(ids)),
        nll=tuple(whole.tolist()),
        costs=tuple(None if x is None else tuple((x - whole).tolist()) for x in dropped),
    )


def continuation(base: Base, prompt: str, text: str) -> tuple[list[int], list[int]]:
    """The tokens of a prompt, and those of a text that follows it directly.

    Both are tokenized as one: a token that reaches over the seam counts as the text's. Raises
    `SurgeryError`.
    """
    if any("\ud800" <= c <= "\udfff" for c in prompt + text):  # how invalid UTF-8 was decoded
        raise SurgeryError("The text contains bytes that aren't valid UTF-8: write it in UTF-8.")
    alone = base.tokenizer(prompt, verbose=False)["input_ids"]
    both = base.tokenizer(prompt + text, verbose=False)["input_ids"]
    same = next(
        (i for i, (a, b) in enumerate(zip(alone, both, strict=False)) if a != b),
        min(len(alone), len(both)),
    )
    return both[:same], both[same:]


def _check(base: Base, prompt_ids: Sequence[int], ids: Sequence[int]) -> None:
    """Raises `SurgeryError` for tokens that can't be scored."""
    size = len(prompt_ids) + len(ids)
    if not ids:
        raise SurgeryError("There is no text to measure: it has no tokens.")
    if not prompt_ids:
        raise SurgeryError("The prompt is empty: the first token of a text has to follow another.")
    most = min(MOST, base.context or MOST)
    if size > most:
        raise SurgeryError(
            f"Prompt and text have {size:,} tokens together; at most {most:,} can be measured. "
            "Shorten one of them."
        )
    base.check_tokens([*prompt_ids, *ids])


def _chained_passes(
    base: Base,
    chain: Chain,
    model: PreTrainedModel,
    ids: torch.Tensor,
    last: int,
    progress: Progress,
) -> Iterator[torch.Tensor]:
    """Logits of the model as it is, then without each of its layers: (1, length, vocabulary), or
    those of the `last` tokens alone."""
    depth, head = len(chain.layers), _head(base, model) * last / ids.numel()
    total = depth * (depth + 1) / 2 + (depth + 1) * head
    meter = Meter(progress, "Dropping each layer", total)

    @cache
    def calls(windows: int) -> Calls:
        return chain.calls(ids.expand(windows, -1))

    whole = calls(1).first  # hidden states before the next layer
    # Some models fold windows and tokens into one dimension; then nothing is run together.
    together = max(1, _ROWS // ids.numel()) if whole.shape[:-1] == ids.shape else 1
    dropped: list[torch.Tensor] = []  # in groups that are run together: (layers, length, width)
    for p, layer in enumerate(chain.layers):
        for i, states in enumerate(dropped):
            windows = len(states) if together > 1 else 1
            dropped[i] = chain.run(calls(windows), p, layer, states)
            meter.add(windows)
        if together > 1 and dropped and len(dropped[-1]) < together:
            dropped[-1] = torch.cat([dropped[-1], whole])
        else:
            dropped.append(whole)
        whole = chain.run(calls(1), p, layer, whole)
        meter.add(1)
    yield chain.logits(ids, whole, last)
    meter.add(head)
    for states in dropped:
        windows = len(states) if together > 1 else 1
        yield from chain.logits(ids.expand(windows, -1), states, last).split(1)
        meter.add(windows * head)


def _whole_passes(
    base: Base, patient: Patient, ids: torch.Tensor, progress: Progress
) -> Iterator[torch.Tensor | None]:
    """The same by a plan for each layer; None for a plan that is refused. Raises `SurgeryError`
    where other layers would change with the plan."""
    plan = patient.plan
    if isinstance(patient, Altered) or not all(
        layer.init.initialiser.from_source for layer in plan.layers
    ):
        raise SurgeryError(
            f"The layers of {base.name} can't be run one by one, so only a base, and a patient "
            "whose layers are copies, can be measured token by token."
        )
    depth = len(plan)
    meter = Meter(progress, "Dropping each layer, in whole passes", depth * depth)

    def called(*_) -> None:
        meter.add(1)

    yield next(each_logits(base, patient.model, plan, [ids], called))
    for p in range(depth):
        try:
            without = base.operate(plan.drop(p, p + 1))
        except (Refused, PlanError):  # a plan needs a layer
            yield None
            continue
        yield next(each_logits(base, without.model, without.plan, [ids], called))


def _head(base: Base, model: PreTrainedModel) -> float:
    """About how many layers the output head is worth in time."""
    layer = sum(one.parameters.total() for one in base.counts.layers) / base.depth
    return embedding_table(model).numel() / layer if layer else 1.0
