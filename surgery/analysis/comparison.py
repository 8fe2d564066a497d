"""Compare a patient with its base on a sample, token by token and layer by layer.

Kullback-Leibler divergence is D(base ‖ patient) = Σ p·(ln p − ln q) over the vocabulary, in nats
per token: it compares the whole predicted distributions, not only the probability of the next
token. If a stack has more tokens than the base, or fewer, both distributions are taken over those
that both have. The patient is a plan's, or one that has been healed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from surgery.architecture.inspect.hooks import (
    by_token,
    hidden_out,
    layers_of,
    states_refused,
    watched,
)
from surgery.errors import SurgeryError
from surgery.memory.out_of_memory import memory_explained
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .cache import MeasurementCache
from .passes import SHORTER, Watch, batches_of, each_logits, ids_of, nll, run
from .sample import Sample
from .score import LossIncrease, Score, interval

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.model import Model
    from surgery.patient import Patient

TOP = 3


@dataclass(frozen=True)
class Guess:
    """A token that a model predicts, as text, and its probability."""

    text: str
    probability: float


@dataclass(frozen=True)
class Token:
    """A scored token of the sample: its text and window, its loss −ln p in nats under base and
    patient, and what each model predicts in its place, most likely first."""

    text: str
    window: int
    nll_base: float
    nll_patient: float
    base_guesses: tuple[Guess, ...]
    patient_guesses: tuple[Guess, ...]

    @property
    def damage(self) -> float:
        """The increase of the loss from base to patient, in nats."""
        return self.nll_patient - self.nll_base


@dataclass(frozen=True)
class Norms:
    """Mean Euclidean norm of the hidden states that each layer returns, in running order; None for
    a layer that text alone doesn't run."""

    base: tuple[float | None, ...]
    patient: tuple[float | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Base and patient on one sample. `cost` is the increase of the mean loss, and `kl` the mean
    divergence in nats per token, with its 95 % interval `kl_low` to `kl_high`. `tokens` are all
    scored tokens in reading order. `norms` is None where layers have no hidden states."""

    plan: Plan
    base: Score
    patient: Score
    cost: LossIncrease
    kl: float
    kl_low: float
    kl_high: float
    tokens: tuple[Token, ...]
    norms: Norms | None


def compare(
    base: Base,
    plan: Plan | Patient,
    sample: Sample,
    progress: Progress = silent,
    *,
    against: Base | None = None,
) -> Comparison:
    """Run a base and a patient over a sample: the plan's patient, or the one given, such as a
    healed one. `against` is the base to compare with where `base` is a stack of several.

    `progress` counts layer-forwards and may raise. Raises `SurgeryError`.
    """
    other = against or base
    whole = other.operate(Plan.whole(other.depth)).model
    unhealed, patient = isinstance(plan, Plan), patient_of(base, plan)
    plan, model = patient.plan, patient.model
    size = sum(map(len, sample.windows))
    meter = Meter(progress, "Comparing", other.depth + len(plan))
    norms = _NormMeans(other.depth), _NormMeans(len(plan))
    shared = _shared_tokens(other, base, sample)
    losses: tuple[list, list] = [], []
    divergence: list[np.ndarray] = []
    tokens: list[Token] = []
    text = TokenTexts(other)

    def watch(means: _NormMeans) -> Watch:
        def called(ids: torch.Tensor, p: int, states: torch.Tensor | None) -> None:
            means.add(p, states)
            meter.add(ids.numel() / size)

        return called

    ranges = batches_of(whole, sample, share=3)
    batches = [ids_of(whole, sample, *batch) for batch in ranges]
    of_base = each_logits(other, whole, Plan.whole(other.depth), batches, watch(norms[0]))
    of_patient = each_logits(base, model, plan, batches, watch(norms[1]))
    for (start, end), ids in zip(ranges, batches, strict=True):
        both = next(of_base), next(of_patient)
        for series, logits in zip(losses, both, strict=True):
            series.append(nll(logits, ids))
        per_window = [x[-1].reshape(len(ids), -1) for x in losses]
        for row, window in enumerate(range(start, end)):
            with memory_explained(SHORTER):
                p, q = (x[row, :-1, :shared].float().log_softmax(-1) for x in both)
                terms = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))  # 0 · ln 0 = 0
                divergence.append(terms.sum(-1).cpu().numpy())
            guesses = [text.guesses(x) for x in (p, q)]
            tokens += map(
                Token,
                text.tokens(sample.windows[window])[1:],
                [window] * (ids.shape[1] - 1),
                per_window[0][row].tolist(),
                per_window[1][row].tolist(),
                *guesses,
            )
        del both, logits  # before the next ones are computed
    scores = [Score.of(np.concatenate(x)) for x in losses]
    if against is None:
        cache = MeasurementCache(base, sample, progress)
        cache.put(Plan.whole(base.depth), np.concatenate(losses[0]))
        if unhealed:  # the cache's entry of a plan is the unhealed patient's
            cache.put(plan, np.concatenate(losses[1]))
    kl = np.concatenate(divergence)
    by_layer = [means.result() for means in norms]
    return Comparison(
        plan=plan,
        base=scores[0],
        patient=scores[1],
        cost=LossIncrease.of(scores[1], scores[0]),
        kl=float(kl.mean()) if np.isfinite(kl).all() else float("inf"),
        **dict(zip(("kl_low", "kl_high"), interval(kl), strict=True)),
        tokens=tuple(tokens),
        norms=Norms(*by_layer) if any(x is not None for x in by_layer[0]) else None,
    )


def _shared_tokens(one: Base, other: Base, sample: Sample) -> int | None:
    """How many ids, from 0 on, are the same tokens in both bases; None for all. Raises
    `SurgeryError` if the sample, which is made of tokens of `one`, has others."""
    if one is other:
        return None
    ours, theirs = (
        {i: token for token, i in base.tokenizer.get_vocab().items()} if base.has_tokenizer else {}
        for base in (one, other)
    )
    odd = {i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i)}
    if not (ours and theirs):
        odd = set()
    rows = other.known_tokens
    for i in {i for ids in sample.windows for i in ids}:
        if i >= rows or (i in odd and i in ours):
            raise SurgeryError(
                f"“{ours.get(i, i)}” in the text is another token in {other.name}. Begin the plan "
                f"with layers of {one.name}, or use text without added tokens."
            )
    return min([one.known_tokens, rows, *odd])


def patient_of(base: Base, of: Plan | Patient) -> Patient:
    """A patient with modules of its own, whose layers can be hooked and replaced."""
    return base.operate(of) if isinstance(of, Plan) else of.again()


def similarity(
    base: Base, plan: Plan | Patient, sample: Sample, progress: Progress = silent
) -> tuple[tuple[float | None, ...], ...]:
    """The mean cosine over all tokens between the hidden states that layer i of the base and
    position p of the patient return: rows i, columns p. None for layers that text alone doesn't
    run.

    Raises `SurgeryError`, and `Refused` where layers have no hidden states.
    """
    patient = patient_of(base, plan)
    models, plan = [base.operate(Plan.whole(base.depth)).model, patient.model], patient.plan
    meter = Meter(progress, "Comparing hidden states", base.depth + len(plan))
    size = sum(map(len, sample.windows))
    total, count = np.zeros((base.depth, len(plan))), 0
    for start, end in batches_of(models[0], sample):
        ids = ids_of(models[0], sample, start, end)
        share = ids.numel() / size
        states: list[list[torch.Tensor | None]] = []
        for model, depth in zip(models, (base.depth, len(plan)), strict=True):
            layers = layers_of(base.anatomy, model)
            if layers is None:
                raise states_refused()
            returned: list[torch.Tensor | None] = [None] * depth

            def called(p, _, output, returned=returned, share=share, ids=ids):
                meter.add(share)
                if (x := by_token(hidden_out(output), ids)) is not None:
                    x = x.to(ids.device)  # of several GPUs, layers return theirs on their own
                    returned[p] = torch.nn.functional.normalize(x.float().flatten(0, -2), dim=-1)

            with watched(layers, called):
                run(model, ids)
            states.append(returned)
        if all(x is None for x in states[0]):
            raise states_refused()
        rows = next(len(x) for x in states[0] if x is not None)
        count += rows
        of_patient = {p: x.flatten() for p, x in enumerate(states[1]) if x is not None}
        there = list(of_patient)
        total[:, [p for p in range(len(plan)) if p not in there]] = np.nan
        columns = torch.stack(list(of_patient.values()))
        for i, a in enumerate(states[0]):
            total[i, there] += np.nan if a is None else columns.mv(a.flatten()).cpu().numpy()
    return tuple(tuple(None if np.isnan(x) else float(x) / count for x in row) for row in total)


class _NormMeans:
    """The mean norm of hidden states by layer."""

    def __init__(self, depth: int) -> None:
        self.total, self.count = [0.0] * depth, [0] * depth

    def add(self, layer: int, states: torch.Tensor | None) -> None:
        if states is not None:
            norms = states.float().norm(dim=-1)
            self.total[layer] += float(norms.sum())
            self.count[layer] += norms.numel()

    def result(self) -> tuple[float | None, ...]:
        return tuple(t / n if n else None for t, n in zip(self.total, self.count, strict=True))


class TokenTexts:
    """Token ids as text, each decoded alone; the ids themselves if a base has no tokenizer."""

    def __init__(self, base: Model) -> None:
        self.tokenizer = base.tokenizer if base.has_tokenizer else None
        self._known: dict[int, str] = {}

    def token(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = (
                str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))
                if self.tokenizer
                else f"⟨{token}⟩"
            )
        return self._known[token]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.token(i) for i in ids]

    def guesses(self, log_p: torch.Tensor, top: int = TOP) -> list[tuple[Guess, ...]]:
        """The most likely tokens for each row of ln p."""
        if not bool(log_p.isfinite().any(-1).all()):
            return [()] * len(log_p)
        values, ids = (x.cpu().tolist() for x in log_p.topk(min(top, log_p.shape[-1]), dim=-1))
        return [
            tuple(Guess(self.token(i), float(np.exp(v))) for v, i in zip(vs, row, strict=True))
            for vs, row in zip(values, ids, strict=True)
        ]


def token_texts(base: Model, ids: Sequence[int]) -> list[str]:
    """Each token decoded alone."""
    return TokenTexts(base).tokens(ids)
