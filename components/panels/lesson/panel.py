"""Lay out the guided lesson: a panel beside the page, and the button that opens it."""

from __future__ import annotations

from dataclasses import asdict

from components.widgets.html_component import LiveHTML
from surgery.lesson.course import BARE, STEPS, TRAINED

NAMES = {BARE: "Lesson model · random weights", TRAINED: "SmolLM2-135M-Instruct · bundled"}


class Lesson(LiveHTML):
    """The panel and the button that opens it. Emits `act` with a step, `halt` and `again`."""

    stem = "lesson"


def layout() -> Lesson:
    """Lay the panel out in the page's header."""
    steps = [{**asdict(step), "base_name": NAMES[step.base]} for step in STEPS]
    return Lesson(value={"steps": steps}, elem_id="lesson")
