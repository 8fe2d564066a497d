"""The training loop: an iterator of events, one for each step, computed when it is asked for.

Whoever stops asking pauses it. It knows the order of things (text, states, steps, looks at held-out
text) and leaves each to its module. Under `accelerate launch` or torchrun every process runs it
over its share of each batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from surgery.base import Base
from surgery.errors import BaseError, SurgeryError
from surgery.patient import Patient
from surgery.plan import Plan
from surgery.progress import Cancelled, Progress, silent
from surgery.seeded_random import Seeded

from . import run_checkpoint, schedule, text, time_budget
from .cost import check_memory
from .distillation import Teaching
from .evaluation import Judge, Look
from .healed import Healed, facts_of
from .settings import Settings
from .state import fits, put_back, taken, whole
from .student import changed, check_savable, chosen, make, trainable

_PROBE = 4  # steps after which minutes become steps; the first is left out
_SAVE_SECONDS = 60.0
_NO_STATES, _NONE_READ = -1, -2  # used instead of a step
_RECENT = 20  # steps whose mean loss is held against the first ones'


class Diverged(SurgeryError):
    """The loss ran away; the last good state is kept."""


@dataclass(frozen=True)
class Event:
    """A step that is done, counted from 1. `steps` is None until it is known how many there will
    be. `loss` is of the batch, before the step. `look` is there after some of the steps."""

    step: int
    steps: int | None
    loss: float
    rate: float
    tokens: int
    tokens_per_second: float
    seconds_left: float | None
    look: Look | None = None
    saved: bool = False


class Healing:
    """A run in a folder: begins it, or goes on where it was.

    `prompt` is what sample texts go on from. Raises `SurgeryError` for settings that don't fit the
    base and plan, for a folder that holds another run, and if the memory won't do.
    """

    def __init__(
        self,
        base: Base,
        plan: Plan,
        settings: Settings,
        folder: str | Path,
        *,
        prompt: str = "The",
        judge: Judge | None = None,
        progress: Progress = silent,
    ) -> None:
        from accelerate import Accelerator

        started = time.monotonic()
        self.base, self.plan, self.settings = base, plan, settings
        self.folder, self.prompt, self._progress = Path(folder), prompt, progress
        self.layers = chosen(plan, settings)
        check_memory(base, plan, settings)
        facts = {
            "base": base.pinned_id or base.name,
            "parameters": base.counts.total,
            "plan": str(plan),
            "settings": settings.as_dict(),
        }
        run_checkpoint.check_same(self.folder, facts)
        base.load(progress)
        self.accelerator = Accelerator(cpu=base.device == "cpu")
        share = self.accelerator.num_processes * settings.accumulate
        if settings.batch % share:
            raise SurgeryError(
                f"A batch of {settings.batch} windows can't be split evenly into {share} parts "
                "(processes times accumulate)."
            )
        patient = base.operate(plan)
        place = patient.model.device
        if self.accelerator.device.type != place.type:
            raise BaseError(f"The weights are on {place}, and training would be elsewhere.")
        self.judge = judge or Judge.of(base, settings.held_out, progress)
        model = make(patient, settings)
        check_savable(patient, _merged_names(model))
        self.view = Patient(base, plan, patient.model)  # the same modules, adapters included
        self.teaching = Teaching(base, plan, settings, patient.model)
        fsdp = getattr(self.accelerator.state, "fsdp_plugin", None)
        if fsdp is not None:
            if getattr(fsdp, "fsdp_version", 1) != 2:
                raise SurgeryError("FSDP is done in its second version: --fsdp_version 2.")
            fsdp.cpu_ram_efficient_loading = False  # every process has the base already
        optimizer = torch.optim.AdamW(
            trainable(model).values(),
            lr=settings.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=settings.weight_decay,
        )
        self.names = list(trainable(model))
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step, self.steps = 0, settings.steps
        self.losses: list[float] = []
        self.looks: list[Look] = []
        self.unread: tuple[int, ...] = ()  # steps of later states that could not be read
        self.seconds = 0.0  # of all that was done in this run, earlier processes included
        self._training = 0.0  # seconds of steps alone, in this process
        self._mine = 0  # steps of this process
        self._stopping = False
        self._good = 0  # a state of so many steps or fewer has had a finite loss since
        self._best = (math.inf, 0)  # mean loss before a state that was kept, and its step
        self._saved_at = time.monotonic()
        self._begin(facts, started)
        self.seconds += time.monotonic() - started

    # ------------------------------------------------------------------ the loop

    def __iter__(self) -> Iterator[Event]:
        """Go on to the end, or until `stop` is called; each event after its step. What was done is
        kept when it ends in whatever way between two steps. Raises `Diverged` or `SaveError`."""
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
        """Tokens a second, of this process's steps but the first; None before the second."""
        if self._mine < 2 or not self._training:
            return None
        return (self._mine - 1) * self.settings.tokens_per_step / self._training

    def stop(self) -> None:
        """End after the step that is being done, and keep it. May be called from anywhere."""
        self._stopping = True

    def _next(self) -> Event:
        begun = time.monotonic()
        loss, rate = self._learn()
        self.step, self._mine = self.step + 1, self._mine + 1
        self.losses.append(loss)
        self._progress("Healing", self.step, self.steps or 0)
        spent = time.monotonic() - begun
        if self._mine > 1:  # the first step also warms up
            self._training += spent
        self.seconds += spent
        if self.steps is None and self._mine >= _PROBE:
            self._settle_length()
        look = self._look() if self._is_time_to_look() else None
        saved = self._agreed(self._is_time_to_save())
        if saved:
            self.save()
        self.seconds += time.monotonic() - begun - spent
        pace = self._training / (self._mine - 1) if self._mine > 1 else spent
        return Event(
            step=self.step,
            steps=self.steps,
            loss=loss,
            rate=rate,
            tokens=self.step * self.settings.tokens_per_step,
            tokens_per_second=self.settings.tokens_per_step / max(pace, 1e-9),
            seconds_left=None if self.steps is None else pace * (self.steps - self.step),
            look=look,
            saved=saved,
        )

    def _learn(self) -> tuple[float, float]:
        """One step: (loss before it, learning rate)."""
        s, accelerator = self.settings, self.accelerator
        rows = schedule.windows_of(self.step, s.batch, len(self.tokens), s.seed)
        rows = rows[accelerator.process_index :: accelerator.num_processes]
        size = len(rows) // s.accumulate
        total = torch.zeros((), device=accelerator.device)
        for part in range(s.accumulate):
            ids = self.tokens[rows[part * size : (part + 1) * size]].long().to(accelerator.device)
            last = part == s.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                # Every part and process draws its own dropout, the same ones after a resume.
                draw = (self.step * s.accumulate + part) * accelerator.num_processes
                with (
                    Seeded(s.seed + draw + accelerator.process_index)
                    if s.dropout
                    else nullcontext()
                ):
                    loss = self._loss(ids) / s.accumulate
                accelerator.backward(loss)
            total += loss.detach()
        norm = accelerator.clip_grad_norm_(self.model.parameters(), s.clip)
        found = float(accelerator.reduce(total, "mean"))
        if not (math.isfinite(found) and math.isfinite(float(norm))):
            self._diverge(f"The loss is not a number any more at step {self.step + 1}")
        self._good = self.step
        first, recent = self.losses[:_RECENT], self.losses[-_RECENT:]
        if len(self.losses) >= 2 * _RECENT:
            before, now = sum(first) / _RECENT, sum(recent) / _RECENT
            if now > before + max(before, 1.0):
                self._good = min(self._good, self._best[1])
                self._diverge(f"The loss grows: {before:.3g} at first, {now:.3g} now")
        rate = schedule.rate(self.step, self.steps, s.learning_rate, s.schedule, s.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return found, rate

    def _loss(self, ids: torch.Tensor) -> torch.Tensor:
        return self.teaching.loss(self.model, ids)

    def _diverge(self, what: str) -> None:
        """Stop. A state that nothing was computed with since it was written may be the bad one."""
        if self.accelerator.is_main_process:
            there = run_checkpoint.states(self.folder)
            while len(there) > 1 and there[-1] > self._good:
                run_checkpoint.forget(self.folder, there.pop())
            raise Diverged(
                f"{what}. The state after {there[-1]:,} steps is kept. Choose a lower learning "
                "rate and another folder, or keep what there is."
            )
        raise Diverged(what + ".")

    # ------------------------------------------------------------------ beginning and keeping

    def _begin(self, facts: dict, started: float) -> None:
        """Resume the run in the folder, or write its first state."""
        fresh = self._agreed(run_checkpoint.facts_of(self.folder) is None)
        if fresh and self.settings.writes_in_time:
            self._look()  # what it takes is not there for the text
        if fresh and self.accelerator.is_main_process:
            seconds = time_budget.writing(
                self.settings, time.monotonic() - started, self.judge.seconds
            )
            read = text.read(self.base, self.settings, self._progress, seconds)
            run_checkpoint.begin(self.folder, facts, read)
        self.accelerator.wait_for_everyone()
        self.tokens = run_checkpoint.text_of(self.folder, self.settings.window)
        if self._resumed():
            return
        if not self.looks:
            self._look()
        self.save()

    def _resumed(self) -> bool:
        """Resume from the last readable state; False if there are no states. Raises `SurgeryError`
        if there are some and none can be read."""
        there = run_checkpoint.states(self.folder)
        state = step = None
        if self.accelerator.is_main_process:  # the other processes use what it finds
            state = next(filter(None, map(self._state, reversed(there))), None)
            step = state[2].step if state else _NONE_READ if there else _NO_STATES
        step = self._of_main(step or 0)
        if step == _NO_STATES:
            return False
        state = state or (self._state(step) if step >= 0 else None)
        if state is None:
            raise SurgeryError(
                f"None of the states in {self.folder} can be read. Remove the folder to start over."
            )
        trained, moments, numbers = state
        put_back(self._parameters(), self.optimizer, trained, moments)
        self.step, self.steps = numbers.step, numbers.steps
        self.losses, self.looks = list(numbers.losses), list(numbers.looks)
        self.seconds = numbers.seconds
        self._good = self.step
        recent = self.losses[-_RECENT:]
        self._best = (sum(recent) / len(recent) if recent else math.inf, self.step)
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
        """Keep the state as it is now. Raises `SaveError`, and then earlier ones are kept."""
        trained, moments = taken(self._parameters(), self.optimizer)
        if self.accelerator.is_main_process:
            numbers = {
                "steps": self.steps,
                "seconds": self.seconds,
                "losses": self.losses,
                "looks": [look.as_dict() for look in self.looks],
            }
            recent = self.losses[-_RECENT:]
            mean = sum(recent) / len(recent) if recent else math.inf
            run_checkpoint.write(self.folder, self.step, trained, moments, numbers, self._best[1])
            self._best = min(self._best, (mean, self.step))
        self.accelerator.wait_for_everyone()
        self._saved_at = time.monotonic()

    def _parameters(self) -> dict[str, nn.Parameter]:
        """What trains, by its name in the model that was made."""
        found = trainable(self.accelerator.unwrap_model(self.model))
        return dict(zip(self.names, found.values(), strict=True))

    # ------------------------------------------------------------------ looking

    def _look(self) -> Look:
        """Perplexities on held-out text, and a text that the patient writes. The same in every
        process."""
        computing = partial(self.teaching.computing, self.accelerator.device)
        look = self.judge.look(self.step, self.view, self.prompt, computing)
        self.teaching.forget()
        self.looks.append(look)
        return look

    def _is_time_to_look(self) -> bool:
        if self.finished:
            return True
        every = self.settings.evaluate_every
        if every is None and self.steps is not None:
            every = max(1, self.steps // time_budget.looks(self.settings, self.judge.seconds))
        return bool(every) and self.step % every == 0

    def _is_time_to_save(self) -> bool:
        every = self.settings.save_every
        if self.finished:
            return True
        if every is not None:
            return self.step % every == 0
        return time.monotonic() - self._saved_at > _SAVE_SECONDS

    def _settle_length(self) -> None:
        """Minutes into steps, once it is known how long a step takes."""
        pace = self._training / (self._mine - 1)
        left = time_budget.left(self.settings, self.seconds, self.judge.seconds)
        self.steps = self._of_main(self.step + max(1, int(left / max(pace, 1e-6))))

    def _agreed(self, word: bool) -> bool:
        """What the main process says, in all of them."""
        return bool(self._of_main(int(word)))

    def _of_main(self, number: int) -> int:
        if self.accelerator.num_processes == 1:
            return number
        from accelerate.utils import broadcast

        tensor = torch.tensor([number], device=self.accelerator.device)
        return int(broadcast(tensor, from_process=0))

    # ------------------------------------------------------------------ the result

    def result(self) -> Healed:
        """The healed patient as it is now, whether or not the run is at its end."""
        values = {name: whole(p) for name, p in self._parameters().items()}
        model = self.accelerator.unwrap_model(self.model)
        tensors = changed(model, values)
        adapter = None
        if self.settings.train == "lora":
            config = model.peft_config["default"].to_dict()
            config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
            config |= {"inference_mode": True, "base_model_name_or_path": None}
            plain = {name.replace(".default.", "."): v for name, v in values.items()}
            adapter = ({n: v.contiguous() for n, v in plain.items()}, config)
        s = self.settings
        source = "a text file" if s.text else f"the data set {s.data}" if s.data else None
        facts = facts_of(
            self.base,
            self.plan,
            s,
            layers=list(self.layers),
            steps=self.step,
            tokens=self.step * s.tokens_per_step,
            text=source or "text sampled from the base",
            seconds=round(self.seconds, 1),
        )
        healed = Healed.made(self.base, self.plan, s, tensors, adapter, facts)
        facts["perplexity"] = self.judge.verdict(healed)
        return healed


def heal(
    base: Base,
    plan: Plan,
    settings: Settings,
    folder: str | Path,
    heard: Callable[[Event], None] | None = None,
    progress: Progress = silent,
) -> Healed:
    """Heal to the end: begins a run in `folder` or goes on with the one there. `heard` is told of
    every step and may raise to stop; what was done is kept. Raises `SurgeryError`."""
    run = Healing(base, plan, settings, folder, progress=progress)
    for event in run:
        if heard is not None:
            try:
                heard(event)
            except BaseException:
                run.save()
                raise
    return run.result()


def _merged_names(model: nn.Module) -> list[str]:
    if not hasattr(model, "peft_config"):
        return list(trainable(model))
    inner = model.get_base_model()
    return [f"{name}.weight" for name, m in inner.named_modules() if hasattr(m, "lora_A")]
