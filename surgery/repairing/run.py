"""Repair a plan: choose the layers, fit or scale them, and measure what it gained."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from surgery.errors import Refused
from surgery.healing.evaluation import Evaluator
from surgery.healing.start import check_one_base
from surgery.healing.text import possible
from surgery.memory.out_of_memory import memory_explained
from surgery.plan import COPY, Init, Plan
from surgery.progress import Meter, Progress, silent
from surgery.texts.default_text import DESCRIPTIONS

from .calibration import calibration_text, held_out
from .memory import check_memory
from .refit import Batch, Refit, Where, refit
from .repaired import Repaired
from .scale_match import scale_matched
from .settings import RepairSettings
from .targets import starts, target_depths

if TYPE_CHECKING:
    from surgery.base import Base

LSTSQ, REFIT = Init("lstsq"), Init("refit")
_BATCH = 4096  # tokens that run through a layer at once


@memory_explained("Choose fewer tokens, or the method alpha or damped.")
def repair(
    base: Base,
    plan: Plan,
    settings: RepairSettings | None = None,
    *,
    evaluator: Evaluator | None = None,
    progress: Progress = silent,
) -> Repaired:
    """Repair a plan without training, in seconds to minutes.

    If the plan marks layers as fitted, exactly those are, each as it is marked (`12@refit`,
    `12@lstsq`); otherwise the method chooses them. The result says what was gained on held-out
    text, see `Repaired.helps`: it may be nothing. Raises `Refused` for plans and models that the
    method isn't right for, and `SurgeryError` for text that is too short or can't be read.
    """
    settings = settings or RepairSettings()
    cut, begun = plan.unfitted, time.monotonic()
    check_one_base(base)
    where = _where(plan, settings.method)  # refuses before anything is loaded
    settings = replace(settings, text=possible(base, settings.text))
    base.load(progress)
    base.operate(cut)  # refuses what can't be operated at all
    evaluator = evaluator or Evaluator.of(base, settings.held_out, progress)
    method, found, tokens, written = settings.method, Refit({}, ()), 0, None
    if method == "damped":
        new = damped(cut)
    else:
        fits = method != "alpha"
        if fits:  # a file or a data set may have less text than is asked for
            check_memory(base, settings.tokens if settings.text in DESCRIPTIONS else 0)
        text, written = calibration_text(base, settings.text, settings.tokens, progress)
        text = text.to(base.model.device)
        tokens = text.numel()
        if fits:
            check_memory(base, tokens)
        if method == "alpha":
            progress("Matching the scale", 0, 0)
            new = scale_matched(base, cut, list(text.split(_rows(text))))
        else:
            found = refit(base, cut, _batches(text), where, _meter(base, cut, where, progress))
            new = cut
            for p in found.positions:
                new = new.initialise(p, p + 1, LSTSQ if p in where.last_only else REFIT)
            if where.positions:  # the plan's marks decide, whatever the method
                method = "lstsq" if len(where.last_only) == len(where.positions) else "refit"
    changed = [p for p, layer in enumerate(new.layers) if layer.init != cut.layers[p].init]
    facts = {
        "base": base.pinned_id or base.name,
        "plan": str(new),
        "cut": str(cut),
        "method": method,
        "text": _text_name(settings.text),
        "tokens": tokens,
        "layers": changed,
        "fits": [
            {
                "layer": one.position,
                "projection": one.name,
                "ridge": one.fit.ridge,
                "error_before": one.fit.before,
                "error_after": one.fit.after,
            }
            for one in found.fits
        ],
    }
    repaired = Repaired.assemble(base, new, found.tensors, facts, written)
    facts["perplexity"] = evaluator.summary(repaired, cut, "repaired")
    facts["seconds"] = round(time.monotonic() - begun, 1)
    return replace(repaired, evaluator=evaluator.reporting_to(silent))


def _text_name(text: str) -> str:
    """A text in a few words. Files by name alone, since models travel."""
    if text.startswith("data:"):
        return f"the data set {text.removeprefix('data:')}"
    return DESCRIPTIONS.get(text) or f"the file {Path(text).name}"


def damped(plan: Plan) -> Plan:
    """The plan with `@scale=1/K` on every copy of a layer that is there K times: a loop whose steps
    add up to one (arXiv 2605.23872). Raises `Refused` if nothing is repeated."""
    times = {source: plan.sources.count(source) for source in set(plan.sources)}
    if max(times.values()) == 1:
        raise Refused("Only repeated layers are damped, and this plan repeats none: use refit.")
    for p, layer in enumerate(plan.layers):
        if times[layer.source] > 1 and layer.init == COPY:
            factor = float(f"{1 / times[layer.source]:.4g}")
            plan = plan.initialise(p, p + 1, Init("scale", factor))
    return plan


def _where(plan: Plan, method: str) -> Where:
    """Which layers a repair fits. Raises `Refused` if there are none to fit."""
    if method not in ("refit", "lstsq"):
        return Where()
    if marked := plan.fitted:
        last_only = [p for p in marked if plan.layers[p].init == LSTSQ]
        return Where(positions=marked, last_only=last_only)
    found = starts(plan, last=method == "lstsq")
    if not found:
        raise Refused(
            "There is nothing to fit: this plan leaves no layers out between others and repeats "
            "none."
        )
    return Where(positions=found, last_only=found) if method == "lstsq" else Where(starts=found)


def _batches(text: torch.Tensor) -> list[Batch]:
    mask = held_out(len(text))
    return [
        Batch(ids, apart)
        for apart in (False, True)
        for ids in text[mask == apart].split(_rows(text))
    ]


def _rows(text: torch.Tensor) -> int:
    return max(1, _BATCH // text.shape[1])


def _meter(base: Base, plan: Plan, where: Where, progress: Progress) -> Meter:
    layers = len(where.positions) or 4 * len(where.starts)
    total = max(target_depths(plan)[p] for p in (*where.starts, *where.positions)) + 4 * layers
    return Meter(progress, "Fitting layers", total)
