"""Evaluation on held-out text: the patient beside its base and the cut patient."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from surgery import texts
from surgery.analysis import MeasurementCache, Sample, Score, perplexities, perplexity
from surgery.analysis.score import resampled_means
from surgery.base import Base
from surgery.errors import SurgeryError
from surgery.patient import Patient
from surgery.plan import Plan
from surgery.progress import Progress, silent

_LONGEST = 1 << 20  # characters of held-out text
_TOKENS = 24  # of the sample text


@dataclass(frozen=True)
class Perplexity:
    """A perplexity with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EvalResult:
    """The evaluation after `step` steps, on `tokens` tokens of held-out text.

    Perplexities of the base, of the `cut` patient before any fit or step, and of the patient `now`;
    `recovered` is (share, low, high) of the lost log perplexity, None if nothing was lost or losses
    aren't finite; `text` is a greedy sample.
    """

    step: int
    base: Perplexity
    cut: Perplexity
    now: Perplexity
    tokens: int
    recovered: tuple[float, float, float] | None
    text: str

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        return asdict(self)


class Evaluator:
    """Evaluates a patient on a sample of held-out text, from the file `held_out`. `seconds` is
    the duration of the last evaluation."""

    def __init__(
        self, base: Base, sample: Sample, progress: Progress = silent, held_out: str = ""
    ) -> None:
        self.base, self.sample, self.held_out = base, sample, held_out
        self.seconds = 0.0
        self._progress = progress

    @classmethod
    def of(cls, base: Base, held_out: str = "", progress: Progress = silent) -> Evaluator:
        """On the text of the file `held_out`, by default on the project's four short texts to judge
        on, which no run trains on unless asked to. Raises `SurgeryError`."""
        words = [texts.get(kind, "judge") for kind in texts.TEXTS]
        if held_out:
            path = Path(held_out).expanduser()
            try:
                with open(path, encoding="utf-8") as file:
                    words = [file.read(_LONGEST)]
            except OSError as error:
                raise SurgeryError(f"{path} can't be read: {error.strerror or error}.") from error
            except (UnicodeDecodeError, ValueError) as error:
                raise SurgeryError(f"{path} is not text in UTF-8.") from error
        return cls(base, Sample.of(base, words), progress, held_out)

    def reporting_to(self, progress: Progress) -> Evaluator:
        """The same evaluator, with all that it has measured, for another job."""
        twin = copy.copy(self)
        twin._progress = progress
        return twin

    def score(self, model: PreTrainedModel) -> Score:
        """The score of any model with the base's vocabulary."""
        return perplexity(model, self.sample, self._progress)

    def evaluate(
        self, step: int, patient: Patient, prompt: str, computing: Callable = nullcontext
    ) -> EvalResult:
        """Score the patient, and sample a text that continues `prompt`. `computing` gives the
        context in which a model in training computes."""
        base, cut = self._scores(patient.plan)
        begun = time.monotonic()
        with computing():
            now = self.score(patient.model)
            written = "".join(patient.stream(prompt, max_new_tokens=_TOKENS, greedy=True))
        self.seconds = time.monotonic() - begun
        return EvalResult(
            step,
            _interval(base),
            _interval(cut),
            _interval(now),
            now.tokens,
            recovered(base, cut, now),
            prompt + written,
        )

    def _scores(self, plan: Plan, *altered: Patient) -> list[Score]:
        """Scores of the base, of the cut patient, and of altered ones. Those of the first two are
        cached for other runs and repairs."""
        cache = MeasurementCache(self.base, self.sample, None)  # reads no weights to identify it
        shape = (self.sample.tokens,)
        plans = (Plan.whole(self.base.depth), plan.unfitted)
        known = {one: cache.get(one, shape) for one in plans}
        new = [self.base.operate(one) for one, losses in known.items() if losses is None]
        scores = perplexities(self.base, [*new, *altered], self.sample, self._progress)
        for patient, score in zip(new, scores, strict=False):
            known[patient.plan] = np.array(score.nll, np.float32)
            cache.put(patient.plan, known[patient.plan])
        return [*(Score.of(known[one]) for one in plans), *scores[len(new) :]]

    def summary(self, altered: Patient, plan: Plan, word: str) -> dict:
        """A healed or repaired patient as it will be saved, called `word`, beside the base and the
        cut patient, which is that of `plan`."""
        base, cut, now = self._scores(plan, altered)
        return {
            "tokens": now.tokens,
            "base": base.perplexity,
            "cut": cut.perplexity,
            word: now.perplexity,
            "intervals": {
                name: [score.low, score.high]
                for name, score in (("base", base), ("cut", cut), (word, now))
            },
            "recovered_of_log_perplexity": recovered(base, cut, now),
            "recovered_of_perplexity": recovered(base, cut, now, logarithm=False),
        }


def recovered(
    base: Score, cut: Score, now: Score, logarithm: bool = True
) -> tuple[float, float, float] | None:
    """(share, low, high): how much of the cut's loss is recovered, with a 95 % interval.

    In log perplexity (the mean loss in nats), or in perplexity. The three scores are of the same
    tokens, so the same blocks of tokens are resampled for all of them. None if the cut lost nothing
    significant, or a loss isn't finite.
    """
    series = [np.asarray(score.nll) for score in (base, cut, now)]
    if not all(np.isfinite(values).all() for values in series):
        return None
    means = [resampled_means(values) for values in series]
    points = [values.mean() for values in series]
    if not logarithm:
        means, points = [np.exp(m) for m in means], [np.exp(p) for p in points]
    gap = means[1] - means[0]
    if np.quantile(gap, 0.025) <= 0:
        return None
    low, high = np.quantile((means[1] - means[2]) / gap, [0.025, 0.975])
    return float((points[1] - points[2]) / (points[1] - points[0])), float(low), float(high)


def _interval(score: Score) -> Perplexity:
    return Perplexity(score.perplexity, score.low, score.high)
