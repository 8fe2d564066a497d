"""Passes of a model over a sample, batch by batch: logits, losses, perplexity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

from surgery.architecture.inspect.chain import Chain
from surgery.architecture.inspect.hooks import by_token, hidden_out, layers_of, watched
from surgery.architecture.inspect.layer_list import embedding_table
from surgery.compute.contexts import many_rows
from surgery.errors import SurgeryError, one_line
from surgery.memory.out_of_memory import memory_explained, memory_message
from surgery.plan import Plan
from surgery.progress import Meter, Progress, alive, silent

from .layer_major import LayerMajor
from .sample import Sample
from .score import Score

if TYPE_CHECKING:
    from surgery.model import Model

# (tokens of a batch, position, hidden states that its layer returned by token, None if there are
# none)
Watch = Callable[[torch.Tensor, int, torch.Tensor | None], None]

_LOGITS = 1 << 26  # values in the logits of one batch, at most
SHORTER = "Choose a shorter text, or a lower limit of tokens."


def perplexity(
    model: PreTrainedModel,
    sample: Sample,
    progress: Progress = silent,
    of: tuple[Model, Plan] | None = None,
) -> Score:
    """The perplexity of any causal language model of transformers on a sample, without its cache.

    `of` is the base and plan that a patient was made from: where weights are read from disk, each
    layer is read once. `progress` counts tokens and may raise. Raises `SurgeryError` if it can't be
    computed.
    """
    batches = [ids_of(model, sample, *batch) for batch in batches_of(model, sample)]
    meter = Meter(progress, "Measuring perplexity", sum(map(len, sample.windows)))
    losses = []
    passes = (
        each_logits(of[0], model, of[1], batches) if of else (run(model, ids) for ids in batches)
    )
    for ids in batches:  # zip would keep the last logits while the next are computed
        losses.append(nll(next(passes), ids))
        meter.add(ids.numel())
    return Score.of(np.concatenate(losses))


@torch.no_grad()
def run(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits of a pass without the cache: (windows, length, vocabulary). Raises `SurgeryError`."""
    with computing(model, ids.numel()):
        return model(input_ids=ids, use_cache=False).logits


@contextmanager
def computing(model: PreTrainedModel, rows: int) -> Iterator[None]:
    """Compute `rows` tokens at once, in the dtype for them. Raises `SurgeryError`."""
    try:
        with many_rows(model, rows):
            yield
    except (RuntimeError, IndexError) as error:  # shapes that don't go together, no memory left
        raise cannot_run(error) from error


def cannot_run(error: Exception) -> SurgeryError:
    """The error for shapes that don't go together, or memory that ran out."""
    return SurgeryError(
        memory_message(error, SHORTER)
        or f"The model can't run over this text: {one_line(error, 200)}"
    )


def nll(logits: torch.Tensor, ids: torch.Tensor) -> np.ndarray:
    """−ln p of every token but each window's first, in reading order: (windows · (length − 1),).

    Computed in float32, window by window. Raises `SurgeryError` if memory runs out.
    """
    with memory_explained(SHORTER):
        losses = [
            torch.nn.functional.cross_entropy(row[:-1].float(), tokens[1:], reduction="none")
            for row, tokens in zip(logits, ids.to(logits.device), strict=True)
        ]
        return torch.cat(losses).cpu().numpy()


def each_logits(
    base: Model,
    model: PreTrainedModel,
    plan: Plan,
    batches: Sequence[torch.Tensor],
    watch: Watch = lambda ids, position, states: None,
) -> Iterator[torch.Tensor]:
    """The logits of a plan's model for each batch of tokens: (windows, length, vocabulary).

    Where weights are read from disk, all batches run through a layer before the next one is used,
    so that it is read once, if the layers can be run one by one. `watch` is called after each
    layer. Raises `SurgeryError`.
    """
    rows = max(ids.numel() for ids in batches)
    layer_by_layer = None
    if base.reads_from_disk:
        with computing(model, rows):
            layer_by_layer = _through_layers(base, model, plan, batches, watch)
    if layer_by_layer is None:
        for ids in batches:
            yield _watched_pass(base, model, ids, watch)
        return
    for _ in range(len(batches)):
        with computing(model, rows):  # never while this waits: other models are run meanwhile
            logits, _ = next(layer_by_layer)
        yield logits
        del logits  # before the next ones are computed


def _through_layers(
    base: Model,
    model: PreTrainedModel,
    plan: Plan,
    batches: Sequence[torch.Tensor],
    watch: Watch,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]] | None:
    """Run all batches through one layer after the other: (logits, tokens) of each, which are
    computed as they are asked for. None if the layers can't be run one by one."""
    chain = Chain.of(base.anatomy, model, batches[0], plan.sources)
    if chain is None:
        return None
    passes = LayerMajor(chain, batches, lambda ids: alive())

    def ran(batch: int, p: int, _, after: torch.Tensor) -> None:
        watch(batches[batch], p, by_token(after, batches[batch]))

    under_way = passes.start(Plan.whole(len(chain.layers)), {})
    while under_way.source is not None:
        passes.step(under_way, ran)
    return passes.logits(under_way)


def _watched_pass(
    base: Model, model: PreTrainedModel, ids: torch.Tensor, watch: Watch
) -> torch.Tensor:
    def called(p: int, _, output: Any) -> None:
        watch(ids, p, by_token(hidden_out(output), ids))

    with watched(layers_of(base.anatomy, model) or (), called):
        return run(model, ids)


def _most_tokens(model: PreTrainedModel) -> int:
    return max(1, _LOGITS // len(embedding_table(model)))


def batches_of(model: PreTrainedModel, sample: Sample, share: int = 1) -> list[tuple[int, int]]:
    """Ranges of windows that a model runs over together; `share` divides the usual batch size."""
    return sample.batches(_most_tokens(model) // share)


def ids_of(model: PreTrainedModel, sample: Sample, start: int, end: int) -> torch.Tensor:
    """The tokens of windows of one length, on the model's device: (windows, length)."""
    return torch.tensor(sample.windows[start:end], device=embedding_table(model).device)
