"""What a plan did: base and patient side by side, token by token and along depth.

Kullback-Leibler divergence is D(base ‖ patient) = Σ p·(ln p − ln q) over the vocabulary, in nats
per token: what the patient loses of the base's whole prediction, not of the one right token alone.
Knows two models and a sample; takes any plan that can be operated, or a patient that has been
healed since.
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
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .cache import MeasurementCache
from .forward_cache import batches_of, ids_of, nll, run
from .sample import Sample
from .score import Cost, Score, interval

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.patient import Patient

TOP = 3


@dataclass(frozen=True)
class Guess:
    """A token that a model would have said, as text, and its probability."""

    text: str
    probability: float


@dataclass(frozen=True)
class Token:
    """A scored token of the sample: its text and window, its loss −ln p in nats under base and
    patient, and what each would have said in its place, likeliest first."""

    text: str
    window: int
    nll_base: float
    nll_patient: float
    base_says: tuple[Guess, ...]
    patient_says: tuple[Guess, ...]

    @property
    def damage(self) -> float:
        """By how much the patient is more surprised, in nats."""
        return self.nll_patient - self.nll_base


@dataclass(frozen=True)
class Norms:
    """Mean Euclidean length of the hidden states that each layer returns, in running order; None
    for a layer that text alone doesn't run."""

    base: tuple[float | None, ...]
    patient: tuple[float | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Base and patient on one sample. `cost` is the difference of their mean losses, paired; `kl`
    the mean divergence in nats per token, from `kl_low` to `kl_high` (95 %). `tokens` has every
    scored one in reading order. `norms` is None where layers have no hidden states."""

    plan: Plan
    base: Score
    patient: Score
    cost: Cost
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
    """Run the base and its patient over a sample: the plan's, or the patient itself, such as a
    healed one. `against` is the base to compare with where `base` is a stack of several.

    `progress` hears of layer-forwards and may raise. Raises `SurgeryError`.
    """
    other = against or base
    whole = other.operate(Plan.whole(other.depth)).model
    bare, patient = isinstance(plan, Plan), patient_of(base, plan)
    plan, model = patient.plan, patient.model
    size = sum(map(len, sample.windows))
    meter = Meter(progress, "Comparing", other.depth + len(plan))
    lengths = _Lengths(other.depth), _Lengths(len(plan))
    losses: tuple[list, list] = [], []
    divergence: list[np.ndarray] = []
    tokens: list[Token] = []
    text = _Text(other)
    for start, end in batches_of(whole, sample, share=3):
        ids = ids_of(whole, sample, start, end)
        share = ids.numel() / size
        both = []
        for found, which, anatomy, lens in zip(
            losses, (whole, model), (other.anatomy, base.anatomy), lengths, strict=True
        ):
            layers = layers_of(anatomy, which)

            def called(p, _, output, lens=lens, share=share, ids=ids):
                lens.add(p, by_token(hidden_out(output), ids))
                meter.add(share)

            if layers is None:
                both.append(run(which, ids))
            else:
                with watched(layers, called):
                    both.append(run(which, ids))
            found.append(nll(both[-1], ids))
        per_window = [x[-1].reshape(len(ids), -1) for x in losses]
        for row, window in enumerate(range(start, end)):
            p, q = (x[row, :-1].float().log_softmax(-1) for x in both)
            terms = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))  # 0 · ln 0 = 0
            divergence.append(terms.sum(-1).cpu().numpy())
            says = [text.guesses(x) for x in (p, q)]
            tokens += map(
                Token,
                text.pieces(sample.windows[window])[1:],
                [window] * (ids.shape[1] - 1),
                per_window[0][row].tolist(),
                per_window[1][row].tolist(),
                *says,
            )
        del both
    found = [Score.of(np.concatenate(x)) for x in losses]
    if against is None:
        measured = MeasurementCache(base, sample)
        measured.put(Plan.whole(base.depth), np.concatenate(losses[0]))
        if bare:  # what is kept under a plan is of the unhealed patient
            measured.put(plan, np.concatenate(losses[1]))
    kl = np.concatenate(divergence)
    known = [lens.means() for lens in lengths]
    return Comparison(
        plan=plan,
        base=found[0],
        patient=found[1],
        cost=Cost.of(found[1], found[0]),
        kl=float(kl.mean()) if np.isfinite(kl).all() else float("inf"),
        **dict(zip(("kl_low", "kl_high"), interval(kl), strict=True)),
        tokens=tuple(tokens),
        norms=Norms(*known) if any(x is not None for x in known[0]) else None,
    )


def patient_of(base: Base, of: Plan | Patient) -> Patient:
    """A patient whose layers one may watch and replace: nobody else runs these modules."""
    return base.operate(of) if isinstance(of, Plan) else of.again()


def similarity(
    base: Base, plan: Plan | Patient, sample: Sample, progress: Progress = silent
) -> tuple[tuple[float | None, ...], ...]:
    """The mean cosine, over all tokens, between what layer i of the base and position p of the
    patient return: rows i, columns p. None for layers that text alone doesn't run.

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
            found: list[torch.Tensor | None] = [None] * depth

            def called(p, _, output, found=found, share=share, ids=ids):
                meter.add(share)
                if (x := by_token(hidden_out(output), ids)) is not None:
                    found[p] = torch.nn.functional.normalize(x.float().flatten(0, -2), dim=-1)

            with watched(layers, called):
                run(model, ids)
            states.append(found)
        if all(x is None for x in states[0]):
            raise states_refused()
        rows = next(len(x) for x in states[0] if x is not None)
        count += rows
        there = [p for p, b in enumerate(states[1]) if b is not None]
        total[:, [p for p in range(len(plan)) if p not in there]] = np.nan
        columns = torch.stack([states[1][p].flatten() for p in there])
        for i, a in enumerate(states[0]):
            total[i, there] += np.nan if a is None else columns.mv(a.flatten()).cpu().numpy()
    return tuple(tuple(None if np.isnan(x) else float(x) / count for x in row) for row in total)


class _Lengths:
    """Adds up the lengths of hidden states by layer."""

    def __init__(self, depth: int) -> None:
        self.total, self.count = [0.0] * depth, [0] * depth

    def add(self, layer: int, states: torch.Tensor | None) -> None:
        if states is not None:
            found = states.float().norm(dim=-1)
            self.total[layer] += float(found.sum())
            self.count[layer] += found.numel()

    def means(self) -> tuple[float | None, ...]:
        return tuple(t / n if n else None for t, n in zip(self.total, self.count, strict=True))


class _Text:
    """Token ids as text, each alone; the ids themselves where a base has no tokenizer."""

    def __init__(self, base: Base) -> None:
        self.tokenizer = base.tokenizer if base.has_tokenizer else None
        self._known: dict[int, str] = {}

    def piece(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = (
                self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
                if self.tokenizer
                else f"⟨{token}⟩"
            )
        return self._known[token]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.piece(i) for i in ids]

    def guesses(self, log_p: torch.Tensor, top: int = TOP) -> list[tuple[Guess, ...]]:
        """For each row of ln p the likeliest tokens."""
        if not bool(log_p.isfinite().any(-1).all()):
            return [()] * len(log_p)
        values, ids = (x.cpu().tolist() for x in log_p.topk(min(top, log_p.shape[-1]), dim=-1))
        return [
            tuple(Guess(self.piece(i), float(np.exp(v))) for v, i in zip(vs, row, strict=True))
            for vs, row in zip(values, ids, strict=True)
        ]


def token_texts(base: Base, ids: Sequence[int]) -> list[str]:
    """Each token as text."""
    return _Text(base).pieces(ids)
