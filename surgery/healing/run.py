"""The training loop: an iterator of events, one for each step.

A step is computed when the iterator is advanced, so a run pauses where iteration pauses. Under
`accelerate launch` or torchrun every process runs it over its share of each batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from surgery.altered import Altered
from surgery.analysis.cache import lasting_name
from surgery.base import Base
from surgery.errors import SurgeryError
from surgery.memory.out_of_memory import memory_explained
from surgery.patient import Patient
from surgery.plan import Plan
from surgery.progress import Cancelled, Progress, silent
from surgery.seeded_random import seeded_on

from . import run_checkpoint, schedule, text, time_budget
from .cost import check_memory
from .distillation import Distillation
from .divergence import Diverged, growth, recent_loss
from .evaluation import EvalResult, Evaluator
from .healed import Healed, facts_of
from .parallel import from_main, make_accelerator
from .settings import Settings
from .start import check_one_base, first_patient, repair_of, start_of
from .state import fits, restore, snapshot, whole
from .student import (
    adapter_of,
    check_savable,
    make_student,
    names_in_patient,
    trainable,
    trained_layers,
    trained_tensors,
)
from .trial_step import step_seconds

_PROBE = 4  # steps after which minutes are turned into steps; the first isn't timed
_SAVE_SECONDS = 60.0
_REPAIR = ("method", "tokens", "text", "perplexity")  # what a healed model records of its repair
_LESS = (
    "Choose a smaller batch size or sequence length, more gradient accumulation, fewer layers, or "
    "LoRA."
)
_NO_STATES, _NONE_READ = -1, -2  # used instead of a step


@dataclass(frozen=True)
class Event:
    """A step that is done, counted from 1.

    `steps` is None until the number of steps is known. `loss` is of the batch, before the step;
    `rate` is the learning rate. `evaluation` comes with some of the steps only.
    """

    step: int
    steps: int | None
    loss: float
    rate: float
    tokens: int
    tokens_per_second: float
    seconds_left: float | None
    evaluation: EvalResult | None = None
    saved: bool = False


class HealingRun:
    """A run in a folder, new or resumed.

    `start` is the repaired patient of this plan to begin from, instead of the cut one; the minutes
    include its repair, and a resumed run has its own. Sample texts continue `prompt`.
    `on_evaluation` is called with each evaluation, the first one before the run is made. Raises
    `SurgeryError` for settings that don't fit the base and plan, for a folder that holds another
    run, and if there is too little memory; `Refused` for a stack of several bases.
    """

    def __init__(
        self,
        base: Base,
        plan: Plan,
        settings: Settings,
        folder: str | Path,
        *,
        start: Altered | None = None,
        prompt: str = "The",
        evaluator: Evaluator | None = None,
        on_evaluation: Callable[[EvalResult], None] | None = None,
        progress: Progress = silent,
    ) -> None:
        started = time.monotonic()
        check_one_base(base)
        self._on_evaluation = on_evaluation
        there = run_checkpoint.facts_of(Path(folder))
        if there is None and start is not None:
            started -= start.facts["seconds"]
        if settings.learning_rate is None:
            known = there.settings.learning_rate if there else None
            rate = known or settings.peak_rate(repaired=start is not None)
            settings = settings.replace(learning_rate=rate)
        self.base, self.plan, self.settings = base, plan, settings
        self.folder, self.prompt, self._progress = Path(folder), prompt, progress
        self.layers = trained_layers(plan, settings)
        text.check_length(base, settings)
        check_memory(base, plan, settings)
        facts = {
            "base": base.pinned_id or base.name,
            "parameters": base.counts.total,
            "weights": lasting_name(base, progress),
            "plan": str(plan),
            "repair": repair_of(start) if start else None,
            "settings": settings.as_dict(),
        }
        run_checkpoint.check_same(self.folder, facts)
        base.load(progress)
        self.accelerator = make_accelerator(base, settings)
        self.device = base.model.device  # of several processes, each has its own
        self._start = start_of(self.folder, plan, start)
        patient = first_patient(base, plan, self._start)
        self.evaluator = evaluator or self._evaluator(start)
        with memory_explained(_LESS):
            model = make_student(patient, settings)
        check_savable(patient, names_in_patient(model))
        self.student = Patient(base, plan, patient.model)  # the same modules, adapters included
        self.distillation = Distillation(base, plan.unfitted, settings, patient.model)
        optimizer = torch.optim.AdamW(
            trainable(model).values(),
            lr=settings.peak_rate(),
            betas=(0.9, 0.95),
            weight_decay=settings.weight_decay,
        )
        self.names = list(trainable(model))
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step, self.steps = 0, settings.steps
        self.losses: list[float] = []
        self.evaluations: list[EvalResult] = []
        self.unread: tuple[int, ...] = ()  # steps of later states that can't be read
        self.seconds = 0.0  # of the whole run, earlier processes included
        self._training = 0.0  # seconds of steps alone, in this process
        self._mine = 0  # steps in this process
        self._stopping = False
        self._good = 0  # states up to this step have given a finite loss since
        self._best = (math.inf, 0)  # lowest mean loss before a saved state, and its step
        self._saved_at = time.monotonic()
        self._begin(facts, started, start.written if start else None)

    def _evaluator(self, start: Altered | None) -> Evaluator:
        """That of the patient to begin from, if it is for the same text."""
        held_out, progress = self.settings.held_out, self._progress
        known = start.evaluator if start is not None else None
        if isinstance(known, Evaluator) and known.base is self.base and known.held_out == held_out:
            return known.reporting_to(progress)
        return Evaluator.of(self.base, held_out, progress)

    # ------------------------------------------------------------------ the loop

    def __iter__(self) -> Iterator[Event]:
        """Train to the end, or until `stop` is called. The state is saved however iteration ends
        between two steps. Raises `Diverged` or `SaveError`."""
        try:
            while not self.finished and not self._agreed(self._stopping):
                yield self._next()
        except Cancelled:  # by the progress function, which is only asked between two steps
            self.save()
            raise
        finally:
            self._stopping = False
        if self.step not in run_checkpoint.states(self.folder):
            self.save()

    @property
    def finished(self) -> bool:
        """Have all steps been done?"""
        return self.steps is not None and self.step >= self.steps

    @property
    def speed(self) -> float | None:
        """Tokens per second over this process's steps after the first; None before the second."""
        if self._mine < 2 or not self._training:
            return None
        return (self._mine - 1) * self.settings.tokens_per_step / self._training

    def stop(self) -> None:
        """End after the current step, and save it. May be called from any thread."""
        self._stopping = True

    def _next(self) -> Event:
        begun = time.monotonic()
        try:
            with memory_explained(_LESS):
                loss, rate = self._train_step()
        except SurgeryError:
            self.optimizer.zero_grad()  # what there was of this step
            raise
        self.step, self._mine = self.step + 1, self._mine + 1
        self.losses.append(loss)
        self._progress("Healing", self.step, self.steps or 0)
        spent = time.monotonic() - begun
        if self._mine > 1:  # the first step also warms up
            self._training += spent
        self.seconds += spent
        if self.steps is None and self._mine >= _PROBE:
            self._fix_length()
        evaluation = self._evaluate() if self._agreed(self._should_evaluate()) else None
        evaluated = time.monotonic()
        self.seconds += evaluated - begun - spent  # before they are saved
        saved = self._agreed(self._should_save())
        if saved:
            self.save()
        self.seconds += time.monotonic() - evaluated
        pace = self._training / (self._mine - 1) if self._mine > 1 else spent
        return Event(
            step=self.step,
            steps=self.steps,
            loss=loss,
            rate=rate,
            tokens=self.step * self.settings.tokens_per_step,
            tokens_per_second=self.settings.tokens_per_step / max(pace, 1e-9),
            seconds_left=None if self.steps is None else pace * (self.steps - self.step),
            evaluation=evaluation,
            saved=saved,
        )

    def _train_step(self) -> tuple[float, float]:
        """One step: (loss before it, learning rate)."""
        s, accelerator = self.settings, self.accelerator
        rows = schedule.windows_of(self.step, s.batch, len(self.tokens), s.seed)
        rows = rows[accelerator.process_index :: accelerator.num_processes]
        size = len(rows) // s.accumulate
        total = torch.zeros((), device=self.device)
        for part in range(s.accumulate):
            ids = self.tokens[rows[part * size : (part + 1) * size]].long().to(self.device)
            last = part == s.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                # Every part and process draws its own dropout, the same ones after a resume.
                draw = (self.step * s.accumulate + part) * accelerator.num_processes
                seed = s.seed + draw + accelerator.process_index
                with seeded_on(self.device, seed) if s.dropout else nullcontext():
                    loss = self._loss(ids) / s.accumulate
                accelerator.backward(loss)
            total += loss.detach()
        norm = accelerator.clip_grad_norm_(self.model.parameters(), s.clip)
        mean = float(accelerator.reduce(total, "mean"))
        if not (math.isfinite(mean) and math.isfinite(float(norm))):
            self._diverge(f"The loss is not finite at step {self.step + 1}")
        self._good = self.step
        if grown := growth(self.losses):
            self._good = min(self._good, self._best[1])
            self._diverge(grown)
        rate = schedule.rate(self.step, self.steps, s.peak_rate(), s.schedule, s.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean, rate

    def _loss(self, ids: torch.Tensor) -> torch.Tensor:
        return self.distillation.loss(self.model, ids)

    def _diverge(self, what: str) -> None:
        """Stop. States written after the last finite loss may hold bad weights: forget them."""
        if self.accelerator.is_main_process:
            there = run_checkpoint.states(self.folder)
            while len(there) > 1 and there[-1] > self._good:
                run_checkpoint.forget(self.folder, there.pop())
            raise Diverged(
                f"{what}. The state after {there[-1]:,} steps is kept. Choose a lower learning "
                "rate and another folder, or keep that state."
            )
        raise Diverged(what + ".")

    # ------------------------------------------------------------------ starting and resuming

    def _begin(self, facts: dict, started: float, written: torch.Tensor | None) -> None:
        """Resume the run in the folder, or write its first state. `written` is text that the base
        wrote for a repair."""
        fresh = self._agreed(run_checkpoint.facts_of(self.folder) is None)
        pace = 0.0
        if fresh and self.settings.writes_in_time:
            self._evaluate()  # first, so that its time is not given to the text
            pace = self._step_seconds()
        if fresh and self.accelerator.is_main_process:
            read = self._read(written, pace, started)
            run_checkpoint.begin(self.folder, facts, read, self._start)
        self.accelerator.wait_for_everyone()
        self.tokens = run_checkpoint.text_of(self.folder, self.settings.window)
        if self._resumed():
            self.seconds += time.monotonic() - started
            return
        if not self.evaluations:
            self._evaluate()
        self.seconds = time.monotonic() - started
        self.save()

    def _read(self, written: torch.Tensor | None, pace: float, started: float) -> torch.Tensor:
        """The run's text. If the base writes it within the minutes, as much as steps of `pace`
        seconds read in what is left of them."""
        base, s = self.base, self.settings
        if not s.writes_in_time:
            return text.read(base, s, self._progress)
        own = text.own_windows(base, s, written)
        left = time_budget.left(s, time.monotonic() - started, self.evaluator.seconds)
        writing = time_budget.Writing(left, s.batch / pace, text.kinds(base, s), len(own))
        return text.read(base, s, self._progress, writing, own)

    def _step_seconds(self) -> float:
        """How long a step takes, tried on random tokens. Changes no weight."""
        s = self.settings
        rows = s.batch // s.accumulate // self.accelerator.num_processes
        random = torch.Generator().manual_seed(s.seed)
        ids = torch.randint(self.base.known_tokens, (rows, s.window), generator=random)
        ids = ids.to(self.device)
        self._progress("Trying a step", 0, 0)
        with memory_explained(_LESS):
            seconds = step_seconds(
                self.accelerator,
                self.model,
                self.optimizer,
                self._loss,
                ids,
                s.accumulate,
                s.clip,
            )
        self._progress("Trying a step", 1, 1)
        return seconds

    def _resumed(self) -> bool:
        """Resume from the last readable state; False if there are no states. Raises `SurgeryError`
        if there are some and none can be read."""
        there = run_checkpoint.states(self.folder)
        state = step = None
        if self.accelerator.is_main_process:  # the other processes use what it finds
            state = next(filter(None, map(self._state, reversed(there))), None)
            step = state[2].step if state else _NONE_READ if there else _NO_STATES
        step = from_main(self.accelerator, step or 0)
        if step == _NO_STATES:
            return False
        state = state or (self._state(step) if step >= 0 else None)
        if state is None:
            raise SurgeryError(
                f"None of the states in {self.folder} can be read. Remove the folder to start over."
            )
        trained, moments, numbers = state
        restore(self._parameters(), self.optimizer, trained, moments)
        self.step, self.steps = numbers.step, numbers.steps
        self.losses, self.evaluations = list(numbers.losses), list(numbers.evaluations)
        self.seconds, self.evaluator.seconds = numbers.seconds, numbers.evaluating
        self._good = self.step
        self._best = (recent_loss(self.losses), self.step)
        self.unread = tuple(other for other in there if other > step)
        if self.accelerator.is_main_process:
            for other in self.unread:
                run_checkpoint.put_aside(self.folder, other)
        self.accelerator.wait_for_everyone()
        return True

    def _state(self, step: int) -> tuple | None:
        """Read a state; None if it is unreadable or doesn't fit the model."""
        state = run_checkpoint.read(self.folder, step)
        if state is None or self.settings.steps not in (None, state[2].steps):
            return None
        return state if fits(self._parameters(), *state[:2]) else None

    def save(self) -> None:
        """Save the current state. Raises `SaveError`; earlier states are then still there."""
        trained, moments = snapshot(self._parameters(), self.optimizer)
        if self.accelerator.is_main_process:
            numbers = {
                "steps": self.steps,
                "seconds": self.seconds,
                "evaluating": self.evaluator.seconds,
                "losses": self.losses,
                "evaluations": [evaluation.as_dict() for evaluation in self.evaluations],
            }
            run_checkpoint.write(self.folder, self.step, trained, moments, numbers, self._best[1])
            self._best = min(self._best, (recent_loss(self.losses), self.step))
        self.accelerator.wait_for_everyone()
        self._saved_at = time.monotonic()

    def _parameters(self) -> dict[str, nn.Parameter]:
        """{name in the student: trained parameter}."""
        parameters = trainable(self.accelerator.unwrap_model(self.model))
        return dict(zip(self.names, parameters.values(), strict=True))

    # ------------------------------------------------------------------ evaluating and saving

    def _evaluate(self) -> EvalResult:
        """Perplexities on held-out text, and a sample text: the same in every process."""
        computing = partial(self.distillation.computing, self.device)
        with _without_dropout(self.student.model):
            evaluation = self.evaluator.evaluate(self.step, self.student, self.prompt, computing)
        self.distillation.forget()
        self.evaluations.append(evaluation)
        if self._on_evaluation is not None:
            self._on_evaluation(evaluation)
        return evaluation

    def _should_evaluate(self) -> bool:
        if self.finished:
            return True
        if every := self.settings.evaluate_every:
            return self.step % every == 0
        if self.steps is None:
            return False
        seconds = self.evaluator.seconds
        return time_budget.evaluates(self.settings, self.step, self.steps, seconds)

    def _should_save(self) -> bool:
        every = self.settings.save_every
        if self.finished:
            return True
        if every is not None:
            return self.step % every == 0
        return time.monotonic() - self._saved_at > _SAVE_SECONDS

    def _fix_length(self) -> None:
        """Turn minutes into steps, once the time of a step is known."""
        pace = self._training / (self._mine - 1)
        left = time_budget.left(self.settings, self.seconds, self.evaluator.seconds)
        self.steps = from_main(self.accelerator, self.step + max(1, int(left / max(pace, 1e-6))))

    def _agreed(self, word: bool) -> bool:
        """The main process's answer, in every process."""
        return bool(from_main(self.accelerator, int(word)))

    # ------------------------------------------------------------------ the result

    def result(self) -> Healed:
        """The healed patient as it is now, whether or not the run is finished."""
        values = {name: whole(p, copy=True) for name, p in self._parameters().items()}
        model = self.accelerator.unwrap_model(self.model)
        fitted, repair = self._start or ({}, {})
        tensors = {**fitted, **trained_tensors(model, values)}
        adapter = adapter_of(model, values) if self.settings.train == "lora" else None
        s = self.settings
        facts = facts_of(
            self.base,
            self.plan,
            s,
            layers=list(self.layers),
            steps=self.step,
            tokens=self.step * s.tokens_per_step,
            text=text.described(self.base, s),
            seconds=round(self.seconds, 1),
            **({"repair": {key: repair.get(key) for key in _REPAIR}} if repair else {}),
        )
        healed = Healed.assemble(self.base, self.plan, s, tensors, adapter, facts)
        facts["perplexity"] = self.evaluator.summary(healed, self.plan, "healed")
        return healed


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Evaluate what will be saved, which has no dropout."""
    active = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.training]
    for module in active:
        module.eval()
    try:
        yield
    finally:
        for module in active:
            module.train()
