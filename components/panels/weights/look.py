"""What one session looks at in the Weights panel."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from surgery import Plan

from .matrix import LastSpectrum
from .panel import DEFAULTS


class Look:
    """What one session looks at: whether the panel is in sight, and which layers are selected."""

    def __init__(self) -> None:
        self.open = False
        # What is chosen above the pictures: kind, scale, measure, matrix. Every drawing reads it
        # here as it begins: one that was asked for before a choice may begin after it.
        self.settings: tuple[str, ...] = DEFAULTS
        self.selected: tuple[str, int, int] | None = None
        self._selected_at = 0.0
        self.spectrum = LastSpectrum()
        self._lock = threading.Lock()
        self.turn = 0  # of drawing: an older drawing that ends late is not shown
        self.drawn: tuple | None = None  # what the pictures along depth were drawn of
        self.kinds: tuple[str, ...] = ()  # that the menu offers

    def __deepcopy__(self, memo: dict) -> Look:
        return Look()  # Gradio copies a state's first value for every page that is opened

    def release(self) -> None:
        """Release the memory of a closed page; what is looked at stays for an hour."""
        self.spectrum.release()

    def take_turn(self) -> int:
        """Begin to draw. Returns the turn, which is over once `turn` is another one."""
        with self._lock:
            self.turn += 1
            return self.turn

    def select(self, request: object) -> None:
        """Note what the browser has selected, unless a later selection arrived before; nothing in
        the request is trusted."""
        at = request.get("at") if isinstance(request, Mapping) else None
        if isinstance(at, (int, float)):
            if at < self._selected_at:
                return
            self._selected_at = at
        self.selected = None
        if isinstance(request, Mapping):
            strip, start, end = (request.get(key) for key in ("strip", "start", "end"))
            if type(start) is not int or type(end) is not int or not 0 <= start < end:
                return
            if strip == "base" or strip == "patient":
                self.selected = (strip, start, end)

    def positions(self, plan: Plan) -> tuple[list[int], list[int]]:
        """Layers of the base and positions of the patient that are selected; else all of them."""
        if self.selected is not None:
            strip, start, end = self.selected
            if strip == "patient" and end <= len(plan):
                here = list(range(start, end))
                return sorted({plan.layers[p].source for p in here}), here
            if strip == "base" and end <= plan.depth:
                here = [p for p, source in enumerate(plan.sources) if start <= source < end]
                return list(range(start, end)), here
        return list(range(plan.depth)), list(range(len(plan)))
