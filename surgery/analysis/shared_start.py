"""Perplexities of several patients of one base, whose common first layers are run only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import PreTrainedModel

from surgery.architecture.inspect.chain import Chain
from surgery.architecture.inspect.hooks import layers_of
from surgery.plan import Layer, Plan
from surgery.progress import Meter, Progress, silent

from .layer_major import LayerMajor, Run
from .passes import batches_of, computing, ids_of, nll, perplexity
from .sample import Sample
from .score import Score

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.patient import Patient


def perplexities(
    base: Base, patients: Sequence[Patient], sample: Sample, progress: Progress = silent
) -> list[Score]:
    """The perplexity of each patient on a sample, as `perplexity` computes it.

    Patients whose first layers are the base's own, such as the base itself and one with later
    layers dropped, share the passes through these. `progress` counts and may raise. Raises
    `SurgeryError`.
    """
    whole = base.operate(Plan.whole(base.depth)).model
    shared = {i: _same_start(base, whole, patient) for i, patient in enumerate(patients)}
    together = [i for i in sorted(shared, key=shared.__getitem__) if shared[i]]
    found: dict[int, Score] = {}
    if len(together) > 1:
        runs = [(patients[i], shared[i]) for i in together]
        scores = _together(base, whole, runs, sample, progress)
        found = dict(zip(together, scores, strict=False))
    return [
        found[i] if i in found else perplexity(patient.model, sample, progress)
        for i, patient in enumerate(patients)
    ]


def _same_start(base: Base, whole: PreTrainedModel, patient: Patient) -> int:
    """How many of the base's layers, with the base's weights, a patient begins with; 0 if it has
    embeddings, norms or a head of its own."""
    mine, own = dict(whole.named_parameters()), dict(patient.model.named_parameters())
    by_layer: dict[int | None, list[str]] = {}
    for name in mine:
        place = base.anatomy.layer_of(name)
        by_layer.setdefault(place and place[1], []).append(name)

    def is_same(layer: int | None) -> bool:
        names = by_layer.get(layer, ())
        return all(name in own and _is_one(mine[name], own[name]) for name in names)

    count = 0
    if is_same(None):
        for layer in patient.plan.layers:
            if layer != Layer(count) or not is_same(count):
                break
            count += 1
    return count


def _is_one(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two parameters are the same memory."""
    return one is other or (
        one.device.type != "meta"
        and one.data_ptr() == other.data_ptr()
        and (one.device, one.dtype, one.shape) == (other.device, other.dtype, other.shape)
        and one.stride() == other.stride()
    )


def _together(
    base: Base,
    whole: PreTrainedModel,
    runs: Sequence[tuple[Patient, int]],
    sample: Sample,
    progress: Progress,
) -> list[Score]:
    """The scores of `runs`: (patient, how many of the base's layers it begins with), in ascending
    order of that number. Empty if the layers can't be run one by one."""
    scores: list[Score] = []
    batches = [ids_of(whole, sample, *batch) for batch in batches_of(whole, sample)]
    with computing(whole, max(ids.numel() for ids in batches)):
        chain = Chain.of(base.anatomy, whole, batches[0], range(base.depth))
        if chain is None:
            return scores
        size = sum(map(len, sample.windows))
        total = runs[-1][1] + sum(len(patient.plan) - shared for patient, shared in runs)
        meter = Meter(progress, "Measuring perplexity", total)
        passes = LayerMajor(chain, batches, lambda ids: meter.add(ids.numel() / size))
        trunk = passes.start(Plan.whole(base.depth), {})
        for patient, shared in runs:
            while trunk.done < shared:
                passes.step(trunk)
            own = dict(enumerate(layers_of(base.anatomy, patient.model) or ()))
            run = Run(patient.plan, shared, list(trunk.states), own)
            while run.source is not None:
                passes.step(run)
            scores.append(Score.of(np.concatenate([nll(*one) for one in passes.logits(run)])))
    return scores
