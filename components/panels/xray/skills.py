"""Skills: what the plan did to copying, sums, brackets and more, drawn skill by skill.

A few items of each skill come first, then more, so that there is a picture within seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.parts import AT_ONCE, QUIET, PageParts
from components.services.client_address import Visitor, visitor
from components.services.default_scores import default_scores
from components.services.run_job import JobPanel, in_turn, run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.measurements import Entry
from components.sessions.session import Session
from components.widgets.job_buttons import start_and_stop, stops
from components.widgets.status.status import Status, note
from components.widgets.teaching import teaching
from surgery import Plan, texts
from surgery.operation import Operation
from surgery.progress import Progress
from surgery.skills.registry import SKILLS

from .skills_view import SkillBoard, is_alone, sorted_keys, view, words

if TYPE_CHECKING:
    from surgery import Base
    from surgery.skills import SkillResults

_STOPPED = note("Stopped. What was graded is kept: Probe skills resumes from here.")


@dataclass(frozen=True)
class SkillsPanel(JobPanel):
    """The panel's components."""

    start: gr.Button
    stop: gr.Button
    status: Status
    board: SkillBoard


def layout() -> SkillsPanel:
    """Lay the panel out in the current tab."""
    with gr.Row(elem_classes="xray-buttons"):
        start, stop = start_and_stop("Probe skills", "skills", 150)
        status = Status(
            value=note("Asks base and patient the same generated questions. No text is needed."),
            elem_id="skills-status",
        )
    teaching(
        "What a plan costs skill by skill: copying, key lookup, brackets, JSON, agreement, sums, "
        "dates, order. Perplexity averages over all of them.",
        "The items are generated, so no model has seen them, and graded by probabilities: is the "
        "right answer likelier than every wrong one?",
        "Skills that the base itself doesn’t have are marked: no plan can lose them.",
    )
    board = SkillBoard(value={}, elem_id="skills")
    return SkillsPanel(start, stop, status, board)


def wire(panel: SkillsPanel, parts: PageParts) -> None:
    """Tie the panel to the page."""
    services = parts.services

    def begin(session: Session, healed: HealedStore, request: gr.Request) -> Iterator[dict]:
        updates = run(panel, services, session, healed, visitor(request))
        yield from run_job(services, "measure", request, updates, panel.ended, stopped=_STOPPED)

    outputs = [panel.status, panel.stop, panel.board]
    probing = panel.start.click(begin, [parts.session, parts.healed], outputs, **QUIET, **AT_ONCE)
    hidden = gr.update(visible=False)
    stops(panel.stop, [probing], lambda: (_STOPPED, hidden), None, [panel.status, panel.stop])
    parts.measured.append(probing)


def run(
    panel: SkillsPanel,
    services: Services,
    session: Session,
    healed: HealedStore,
    who: Visitor | None = None,
) -> Iterator[dict]:
    """Wait for a turn, probe base and patient, draw what is there, and add it to the Log. `who` is
    the visitor, for fair queueing. Raises `SurgeryError`."""
    operation = session.operation(healed)
    probing = _Probing(panel, services, session, operation)

    def opened(progress: Progress) -> tuple[Base, SkillResults | None]:
        base = services.bases.get(operation, progress)
        return base, services.skills.known(base, operation)

    base, known = yield from watch(opened, panel.running)
    probing.name, probing.identity = base.name, base.identity
    if known:
        probing.latest.append(known)
    else:
        yield from in_turn(services.skills.turns, who, probing.turn(), panel.running)
    yield from probing.log()


class _Probing:
    """One run: the results so far, and what of them was drawn and added to the Log."""

    def __init__(
        self, panel: SkillsPanel, services: Services, session: Session, operation: Operation
    ) -> None:
        self.panel, self.services = panel, services
        self.session, self.operation = session, operation
        self.name = self.identity = ""  # of the base
        self.latest: list[SkillResults] = []
        self._order = list(SKILLS)
        self._sorted = 0  # the number of items that the order rests on

    def turn(self) -> Iterator[dict]:
        """Probe, and draw each result."""

        def work(progress: Progress) -> SkillResults:
            base = self.services.bases.load(self.operation, progress)
            with self.services.bases.in_use(base):
                return self.services.skills.probe(
                    base, self.operation, self.latest.append, progress
                )

        self.latest.append((yield from watch(work, self._running)))

    def log(self) -> Iterator[dict]:
        """Draw the whole result, and see to it that the patient has a row in the Log."""
        results, session, operation = self.latest[-1], self.session, self.operation
        yield {self.panel.board: self._drawn(results)}

        def work(progress: Progress) -> tuple[Base, list]:
            base = self.services.bases.load(operation, progress)
            with self.services.bases.in_use(base):
                return base, default_scores(base, operation, progress)

        base, scores = yield from watch(work, self.panel.running)
        for of, score in scores:
            session.measurements.add(Entry.of(base, of, score, texts.DEFAULT))
        yield {
            self.panel.board: self._drawn(results),
            **self.panel.ended(note(f"{words(operation, results).capitalize()}.")),
        }

    def _running(self, status: dict) -> dict:
        update = self.panel.running(status)
        if self.latest:
            update[self.panel.board] = self._drawn(self.latest[-1])
            self.latest.clear()
        return update

    def _drawn(self, results: SkillResults) -> dict:
        """The picture; sorted anew, and logged, whenever all skills have more items."""
        if results.items > self._sorted:
            self._sorted, self._order = results.items, sorted_keys(results)
            self._note_down(results)
        return view(self.name, self.operation, results, self._order)

    def _note_down(self, results: SkillResults) -> None:
        whole = Operation(self.operation.spec, Plan.whole(self.operation.plan.depth))
        measurements = self.session.measurements
        measurements.add_skills(self.identity, whole, words(whole, results))
        if not is_alone(self.operation):
            altered = words(self.operation, results)
            measurements.add_skills(self.identity, self.operation, altered)
