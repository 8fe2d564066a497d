"""The state of one browser session: its base, its plan with undo and redo, a selection.

Edits that a browser requests become edits of the plan here. Nothing in a request is trusted, and
one that was meant for an older plan is not applied to a newer one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from components.services.bases import Shown
from components.services.deployment import Deployment
from surgery import PRESETS, History, Init, Plan, PlanError, SurgeryError
from surgery import presets as preset_texts
from surgery.operation import Operation
from surgery.plan import COPY
from surgery.recipes.merge_methods import check_is_plan
from surgery.repairing.targets import starts

from .contents import contents
from .measurements import Measurements

if TYPE_CHECKING:
    from surgery import Base
    from surgery.known_base import KnownBase

    from .healed_store import HealedStore

_LONGEST_TEXT = 20_000  # characters of a plan's notation


@dataclass(frozen=True)
class Selection:
    """Layers [start, end) of the base, or positions [start, end) of the patient."""

    strip: Literal["base", "patient"]
    start: int
    end: int


class Session:
    """Kept in a `gr.State`: one for each open page, never shared."""

    def __init__(self, deployment: Deployment | None = None) -> None:
        self._deployment = deployment or Deployment()
        self.spec = ""
        self.identity = ""  # of the files of its base
        self.opening: object = None  # the latest request to open a base
        self.measurements = Measurements()
        self.importance: dict | None = None  # of the base's layers, once it has been looked up
        self._lock = threading.Lock()
        self._name = ""
        self._kinds: tuple[str, ...] = ()
        self._contents: dict = {}
        self._history: History | None = None
        self._selection: Selection | None = None
        self._revision = 0
        # A page that stays open must get higher ones from the session that takes the place of one
        # that was dropped, or from a restarted app.
        self._born = int(1000 * time.time())
        self._message = ""
        self._error = ""
        self._trials: dict[str, Plan | PlanError] = {}
        self._text = ""
        self._edited = False
        self._repaired: Plan | None = None  # the plan that the last repair made

    def __deepcopy__(self, memo: dict) -> Session:
        # Gradio copies a state's first value for every page that is opened; a lock can't be copied.
        return Session(self._deployment)

    @property
    def plan(self) -> Plan:
        """The current plan. Raises `PlanError` before a base is open."""
        if self._history is None:
            raise PlanError("Open a base first.")
        return self._history.present

    @property
    def order(self) -> int:
        """Rises with every change: of two answers the one with the higher is newer."""
        return self._born + self._revision

    @property
    def name(self) -> str:
        """The name of the base; empty before one is open."""
        return self._name

    def open(self, spec: str, base: Base | KnownBase) -> None:
        """Start over with another base and its whole plan."""
        with self._lock:
            self.spec, self.identity = spec, base.identity
            self._name, self._kinds = base.name, base.kinds
            self._contents = contents(base)
            self.importance = None
            self._history = History(Plan.whole(base.depth))
            self._selection = None
            self._revision += 1
            self._message = f"{base.name}: {layers_text(base.depth)}"
            self._error = self._text = ""
            self._edited, self._repaired = False, None

    def shows(self, spec: str, base: Base) -> bool:
        """Whether this base is open, with its files as they are."""
        with self._lock:
            return (self.spec, self.identity) == (spec, base.identity)

    def operation(self, healed: HealedStore | None = None) -> Operation:
        """The operation that the page shows; with `healed`, its healed or repaired patient if there
        is one. Raises `SurgeryError`."""
        spec, identity, plan = self.spec, self.identity, self.plan
        found = healed.operation(spec, plan) if healed else Operation(spec, plan)
        return replace(found, identity=identity)

    @property
    def shown(self) -> Shown:
        """The base that the page shows."""
        with self._lock:
            return Shown(self.spec, self.identity)

    def apply(self, request: Any, edited: bool = True) -> None:
        """Apply an edit that the browser requests, or note why not. `edited` is False where the
        page itself sets up a plan: see `view`.

        `request` has an `op`, the `revision` that it was meant for, and what the operation needs:
        `strip`, `start` and `end` of the selection, `to`, `text` (a plan, or how layers begin), or
        a preset's `name` and `values`. With the op `try` it has the values of several `presets` by
        name: their plans are made, see `trials`, and the current one stays.
        """
        with self._lock:
            self._revision += 1
            self._message = self._error = self._text = ""
            self._trials = {}
            self._edited = edited
            try:
                if self._history is None:
                    raise PlanError("Open a base first.")
                if not isinstance(request, Mapping):
                    raise PlanError("This is not an edit.")
                if request.get("revision") != self._revision - 1:
                    raise PlanError("The plan has changed in the meantime: check it and try again.")
                self._apply(request)
            except SurgeryError as error:
                self._error = str(error)
                if isinstance(request, Mapping) and request.get("op") == "write":
                    self._text = str(request.get("text", ""))[:_LONGEST_TEXT]

    def release(self) -> None:
        """Forget the last repair: what it fitted is gone once the page was closed, and the same
        plan may be repaired again."""
        self._repaired = None

    def become(self, text: str, edited: bool = True) -> None:
        """Change to a plan given in notation; `edited` as in `apply`."""
        self.apply({"op": "write", "text": text, "revision": self._revision}, edited)

    def repaired(self, plan: Plan) -> None:
        """Change to the plan that a repair made of the current one, as one edit."""
        with self._lock:
            self._revision += 1
            self._error = self._text = ""
            self._repaired, self._edited = plan, True
            self._become(plan, None, "Repaired", fitted=True)

    def refuse(self, error: Exception) -> None:
        """Note why a request was turned down."""
        with self._lock:
            self._revision += 1
            self._message, self._error, self._text = "", str(error), ""

    def view(self) -> dict:
        """What the layer strip draws, as plain values. `edited` says that the visitor made the
        plan: texts may be generated again for it. That of a link or of a lesson's step was not."""
        if self._history is None:
            return {}
        with self._lock:
            history, plan = self._history, self.plan
            seen: Counter = Counter()
            patient = []
            for layer in plan.layers:
                seen[layer.source] += 1
                patient.append(
                    {
                        "id": f"{layer.source}.{seen[layer.source]}",
                        "source": layer.source,
                        "copy": seen[layer.source],
                        "init": "" if layer.init == COPY else str(layer.init),
                    }
                )
            chosen = self._selection
            return {
                "name": self._name,
                "depth": plan.depth,
                "kinds": list(self._kinds),
                "contents": self._contents,
                "importance": self.importance,
                "patient": patient,
                "selection": chosen
                and {"strip": chosen.strip, "start": chosen.start, "end": chosen.end},
                "text": self._text or str(plan),
                "unread": bool(self._text),
                "spec": self.spec,
                "whole": plan.is_whole,
                "edited": self._edited,
                "undo": bool(history.past),
                "redo": bool(history.future),
                "repair": not self._deployment.why_no_repair
                and plan != self._repaired
                and bool(starts(plan.unfitted)),
                "why_no_repair": self._deployment.why_no_repair,
                "revision": self._revision,
                "order": self.order,
                "message": self._message,
                "error": self._error,
                "presets": _presets(plan.depth),
            }

    @property
    def trials(self) -> Mapping[str, Plan | PlanError]:
        """The plans of the presets that the last request tried out, by the preset's name."""
        return self._trials

    # ------------------------------------------------------------------ operations

    def _apply(self, request: Mapping) -> None:
        history, plan = self._history, self.plan
        op = str(request.get("op"))
        if op in ("undo", "redo"):
            self._history = getattr(history, op)()
            self._selection = None
            self._message = f"{op.capitalize()}: {layers_text(len(self._history.present))}"
            return
        if op == "write":
            text = str(request.get("text", ""))
            if len(text) > _LONGEST_TEXT:
                raise PlanError(f"A plan is written in at most {_LONGEST_TEXT:,} characters.")
            check_is_plan(text)
            new = preset_texts.parse(text, plan.depth) or Plan.parse(text, plan.depth)
            self._become(new, None, "Plan applied", fitted=True)
            return
        if op == "preset":
            name = str(request.get("name"))
            if name not in PRESETS:
                raise PlanError("There is no such preset.")
            self._become(_preset(name, request.get("values"), plan.depth), None, f"Preset {name}")
            return
        if op == "try":
            asked = request.get("presets")
            presets: Mapping = asked if isinstance(asked, Mapping) else {}
            for name in PRESETS.keys() & presets:
                try:
                    trial = _preset(name, presets[name], plan.depth)
                    self._deployment.check_plan(len(trial))
                    self._trials[name] = trial
                except PlanError as error:
                    self._trials[name] = error
            return
        chosen = _selection(request, plan)
        edits = {
            "drop": self._drop,
            "repeat": self._repeat,
            "restore": self._restore,
            "reverse": self._reverse,
            "move": self._move,
            "insert": self._insert,
            "initialise": self._initialise,
        }
        if op not in edits:
            raise PlanError("There is no such edit.")
        edits[op](plan, chosen, request)

    def _drop(self, plan: Plan, chosen: Selection, request: Mapping) -> None:
        if chosen.strip == "base":
            wanted = range(chosen.start, chosen.end)
            kept = tuple(layer for layer in plan.layers if layer.source not in wanted)
            if len(kept) == len(plan):
                raise PlanError(f"{_named(wanted)} already dropped.")
            new = Plan(kept, plan.depth)
        else:
            new = plan.drop(chosen.start, chosen.end)
        count = len(plan) - len(new)
        # What is gone can be seen, and brought back, in the strip of the base.
        gone = sorted({layer.source for layer in plan.layers} - {i.source for i in new.layers})
        run = gone == list(range(gone[0], gone[-1] + 1)) if gone else False
        selection = Selection("base", gone[0], gone[-1] + 1) if run else None
        self._become(new, selection, f"{layers_text(count)} dropped")

    def _repeat(self, plan: Plan, chosen: Selection, request: Mapping) -> None:
        chosen = _in_patient(plan, chosen)
        count = chosen.end - chosen.start
        new = Selection("patient", chosen.end, chosen.end + count)
        self._become(plan.repeat(chosen.start, chosen.end), new, f"{layers_text(count)} repeated")

    def _restore(self, plan: Plan, chosen: Selection, request: Mapping) -> None:
        start, end = chosen.start, chosen.end
        if chosen.strip == "patient":
            sources = plan.sources[start:end]
            start, end = min(sources), max(sources) + 1
        new = plan.restore(start, end)
        at = new.sources.index(start)
        selection = Selection("patient", at, at + end - start)
        self._become(new, selection, f"{layers_text(end - start)} restored")

    def _reverse(self, plan: Plan, chosen: Selection, request: Mapping) -> None:
        chosen = _in_patient(plan, chosen)
        new = plan.reverse(chosen.start, chosen.end)
        self._become(new, chosen, f"{layers_text(chosen.end - chosen.start)} reversed")

    def _move(self, plan: Plan, chosen: Selection, request: Mapping) -> None:
        chosen = _in_patient(plan, chosen)
        to = _whole(request.get("to"), "to")
        count = chosen.end - chosen.start
        new = plan.move(chosen.start, chosen.end, to)
        at = to if to <= chosen.start else max(chosen.start, to - count)
        self._become(new, Selection("patient", at, at + count), f"{layers_text(count)} moved")

    def _insert(self, plan: Plan, chosen: Selection, request: Mapping) -> None:
        at = _whole(request.get("to"), "to")
        if chosen.strip != "base":
            raise PlanError("Only layers of the base can be inserted; the patient's can be moved.")
        count = chosen.end - chosen.start
        new = plan.insert(at, chosen.start, chosen.end)
        self._become(new, Selection("patient", at, at + count), f"{layers_text(count)} inserted")

    def _initialise(self, plan: Plan, chosen: Selection, request: Mapping) -> None:
        chosen = _in_patient(plan, chosen)
        init = Init.parse(str(request.get("text", "")))
        new = plan.initialise(chosen.start, chosen.end, init)
        count = layers_text(chosen.end - chosen.start)
        self._become(new, chosen, f"{count} initialised as {str(init).replace('=', ' ')}")

    def _become(
        self, plan: Plan, selection: Selection | None, what: str, fitted: bool = False
    ) -> None:
        """Change to a plan. After an edit no layer is `fitted`, since the fits were another
        plan's."""
        if plan.fitted and not fitted:
            plan, what = plan.unfitted, f"{what}, not repaired any more"
        self._deployment.check_plan(len(plan))
        assert self._history is not None  # an operation began with its plan
        self._history = self._history.do(plan).within(self._deployment.max_steps)
        self._selection = selection
        self._message = f"{what}: {layers_text(len(plan))} now"


def _selection(request: Mapping, plan: Plan) -> Selection:
    strip = request.get("strip")
    if strip not in ("base", "patient"):
        raise PlanError("Select layers first.")
    length = plan.depth if strip == "base" else len(plan)
    start, end = (_whole(request.get(key), key) for key in ("start", "end"))
    if not 0 <= start < end <= length:
        raise PlanError("These layers don't exist: select again.")
    return Selection(strip, start, end)


def _in_patient(plan: Plan, chosen: Selection) -> Selection:
    """The selection as positions of the patient, where the base's layers stand there once."""
    if chosen.strip == "patient":
        return chosen
    wanted = range(chosen.start, chosen.end)
    at = [p for p, source in enumerate(plan.sources) if source in wanted]
    if not at:
        raise PlanError(f"{_named(wanted)} not in the patient: restore them first.")
    if [plan.sources[p] for p in at] != list(wanted) or at[-1] - at[0] + 1 != len(at):
        raise PlanError("These layers are not contiguous in the patient: select them there.")
    return Selection("patient", at[0], at[-1] + 1)


def _whole(value: Any, name: str) -> int:
    """A whole number from a browser. Raises `PlanError`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise PlanError(f"{str(name)[:40]} must be a whole number.")
    return value


def layers_text(count: int) -> str:
    """A number of layers in words."""
    return "1 layer" if count == 1 else f"{count} layers"


def _named(layers: range) -> str:
    if len(layers) == 1:
        return f"Layer {layers[0]} is"
    return f"Layers {layers[0]} to {layers[-1]} are"


def _preset(name: str, values: Any, depth: int) -> Plan:
    """A preset's plan with values from the browser. Raises `PlanError`."""
    values = values if isinstance(values, Mapping) else {}
    return PRESETS[name](depth, **{str(k)[:40]: _whole(v, k) for k, v in values.items()})


def _presets(depth: int) -> list[dict]:
    return [
        {
            "name": preset.name,
            "hint": preset.hint,
            "parameters": [
                {"name": p.name, "hint": p.hint, "value": p.default(depth)}
                for p in preset.parameters
            ],
        }
        for preset in PRESETS.values()
    ]
