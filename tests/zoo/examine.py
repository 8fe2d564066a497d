"""One model under every plan: what the patient, the saved checkpoint and the oracle compute.

Knows how to compare; how models are made is `build`'s affair, and what they should give is the
oracle's. A plan comes out as `exact`, as `refused` with the reason, or as `wrong`: there is no
fourth way, so whatever the oracle can't vouch for has to be refused to be right.
"""

from __future__ import annotations

import gc
import tempfile
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import oracle
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from surgery import Base, Plan, Refused

from . import build
from .measure import cache_growth
from .sizes import DEPTH

PLANS = {
    "drop": "0:2, 4:6",
    "repeat": "0:4, 2:6",
    "swap": "0, 3, 2, 1, 4, 5",
    "keep": "0:6",
    "drop first": "1:6",
    "repeat one": "0:4, 3, 4:6",
    "reverse": "5, 4, 3, 2, 1, 0",
    "every other": "0, 2, 4",
    "twice": "0:6*2",
}
# An extra copy of layer 3 that begins in each of the ways there are, and layer 3 without a half.
BEGINNINGS = {
    "identity": "0:4, 3@identity, 4:6",
    "scale": "0:4, 3@scale=0.5, 4:6",
    "average": "0:4, 3@average, 4:6",
    "random": "0:4, 3@random, 4:6",
    "no-attention": "0:3, 3@no-attention, 4:6",
    "no-mlp": "0:3, 3@no-mlp, 4:6",
}
ALL_WITHOUT_ATTENTION = "0:6@no-attention"
TOLERANCE = 1e-5  # in units of the logits' spread, where the order of sums may differ

ROUNDING = 1e-3  # more than this is not rounding
BEGUN, STEPS = 5, 19  # tokens before the cache is used, and with it


@dataclass
class Outcome:
    """What became of a plan: `exact`, `refused` or `wrong`; and why, where not exact."""

    state: str
    why: str = ""


@dataclass
class Finding:
    """One type, examined. `broken` says why not even the unmodified model could be."""

    type: str
    cls: str = ""
    stack: str = ""
    broken: str = ""
    notes: list[str] = field(default_factory=list)
    plans: dict[str, Outcome] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """The plans that came out wrong."""
        return [name for name, outcome in self.plans.items() if outcome.state == "wrong"]

    def exact(self, *names: str) -> bool:
        """Whether all of these plans came out exact."""
        return all(name in self.plans and self.plans[name].state == "exact" for name in names)


def quiet() -> None:
    """One thread, and none of transformers' advice: for a process that examines many."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def examine(
    model_type: str, plans: dict[str, str] = PLANS | BEGINNINGS, steps: int = STEPS
) -> Finding:
    """Build a tiny model of a type, save it, and operate on what was saved. The cache is used for
    `steps` tokens, one by one."""
    result = Finding(model_type)
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        home = Path(folder)
        try:
            made = build.model(model_type)
            with torch.no_grad():
                made(input_ids=build.tokens(), use_cache=False)
            made.save_pretrained(home / "base")
        except Exception as error:
            result.broken = _said(error)
            return result
        result.cls = type(made).__name__
        # AutoModel needs the config as it was made, also where the class took only a part of it.
        build.config(model_type).save_pretrained(home / "base")
        try:
            base = Base.open(str(home / "base"))
            base.load()
            result.stack = ", ".join(base.anatomy.stack.paths)
        except Refused as error:
            result.plans = {name: Outcome("refused", _said(error)) for name in plans}
            return result
        examine_base(base, home, plans, result, steps)
        del base, made
    gc.collect()
    return result


def examine_base(
    base: Base, home: Path, plans: dict[str, str], result: Finding, steps: int = STEPS
) -> None:
    """Every plan on an open base; results go into `result`."""
    ids = build.tokens()

    @cache  # computed once, and only if a plan isn't refused
    def known():
        try:
            truth, no_truth = oracle.of(base.model, base.anatomy.stack.paths, ids), ""
        except oracle.NoOracle as error:
            truth, no_truth = None, str(error)
            result.notes.append(f"no oracle: {error}")
        return truth, no_truth, _cache_limit(base, ids, steps, result)

    for name, text in plans.items():
        out = home / name.replace(" ", "-")
        plan = Plan.parse(text, DEPTH)
        try:
            patient = base.operate(plan).model
        except Refused as error:
            result.plans[name] = _refused(base, plan, out, error)
            continue
        except Exception as error:
            result.plans[name] = Outcome("wrong", _said(error))
            continue
        truth, no_truth, limit = known()
        if truth is None and name != "keep" and name not in BEGINNINGS:
            result.plans[name] = Outcome("wrong", f"neither shown nor refused: {no_truth}")
            continue
        try:
            result.plans[name] = _compared(base, plan, patient, truth, ids, out, limit, steps)
            if name == "no-attention" and result.plans[name].state == "exact":
                result.plans[name] = _apart(base, ids)
        except Exception as error:
            result.plans[name] = Outcome("wrong", _said(error))


def _cache_limit(base: Base, ids: torch.Tensor, steps: int, result: Finding) -> float | None:
    """How far cached text may be from a full pass: little more than the unmodified model's own is.
    None where that has no cache, or one that computes something else."""
    own = _full_and_cached(base.model, ids, steps)
    if own is None:
        result.notes.append("no cache to compare: the unmodified model has none")
        return None
    far = _far(*own)
    if far > ROUNDING:
        result.notes.append(f"no cache to compare: the unmodified model's is {far:.0e} off itself")
        return None
    return max(TOLERANCE, 10 * far)


def _refused(base: Base, plan: Plan, out: Path, error: Refused) -> Outcome:
    """A plan that is refused in memory has to be refused on disk, with nothing written."""
    try:
        base.save(plan, out)
    except Refused:
        return (
            Outcome("wrong", "refused, but written")
            if out.exists()
            else Outcome("refused", _said(error))
        )
    return Outcome("wrong", f"refused in memory ({error}) but saved all the same")


@torch.no_grad()
def _compared(
    base: Base,
    plan: Plan,
    patient: PreTrainedModel,
    truth,
    ids: torch.Tensor,
    out: Path,
    limit: float | None,
    steps: int,
) -> Outcome:
    logits = patient(input_ids=ids, use_cache=False).logits
    begins = {layer.init.kind for layer in plan.layers}
    own = base.model(input_ids=ids, use_cache=False).logits
    if begins <= {"copy"}:
        expected = own if truth is None else truth.logits(plan.sources)
    else:  # the identity changes nothing; of the others the checkpoint is the witness
        expected = own if "identity" in begins else logits
    if (far := _far(logits, expected)) > TOLERANCE:
        return Outcome("wrong", f"the patient is {far:.1e} from what it should give")
    if expected is logits and _far(logits, own) <= TOLERANCE:
        return Outcome("wrong", "the patient gives what the base gives")
    if not torch.isfinite(logits).all():
        return Outcome("wrong", "the logits are not finite")
    base.save(plan, out)
    again, info = AutoModelForCausalLM.from_pretrained(
        out, dtype=torch.float32, output_loading_info=True
    )
    again.eval()
    if lost := [key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]]:
        return Outcome("wrong", f"the checkpoint reloads with {lost[0]}: {min(info[lost[0]])}")
    if _far(again(input_ids=ids, use_cache=False).logits, logits) > TOLERANCE:
        return Outcome("wrong", "the reloaded checkpoint gives other logits than the patient")
    cached = []
    for what, model in (("patient", patient), ("reloaded checkpoint", again)):
        both = _full_and_cached(model, ids, steps)
        cached.append(None if both is None else both[1])
        if limit is not None and (both is None or _far(*both) > limit):
            far = "" if both is None else f" ({_far(*both):.1e})"
            return Outcome("wrong", f"the {what}'s cached text differs from its full pass{far}")
    if (cached[0] is None) != (cached[1] is None) or (
        cached[0] is not None and _far(*cached) > (limit or TOLERANCE)
    ):
        return Outcome("wrong", "patient and reloaded checkpoint differ in their cached text")
    return _previewed(base, plan, again, ids)


def _previewed(base: Base, plan: Plan, again: PreTrainedModel, ids: torch.Tensor) -> Outcome:
    """Does the preview say what the reloaded checkpoint is?"""
    message = base.preview(plan)
    have = sum(p.numel() for p in again.parameters())
    if message.parameters != have:
        return Outcome("wrong", f"preview says {message.parameters} parameters, it has {have}")
    grown = cache_growth(again, ids)
    if message.kv_bytes_per_token is None:
        return Outcome("exact", "cache: unknown to the preview")
    values = message.kv_bytes_per_token // base.torch_dtype.itemsize
    if grown is not None and grown != values:
        return Outcome("wrong", f"preview says {values} cached values a token, it keeps {grown}")
    return Outcome("exact")


@torch.no_grad()
def _apart(base: Base, ids: torch.Tensor) -> Outcome:
    """Without the attention of any layer, no position knows the others: the logits of the last are
    the same whatever the first token is. Unless the plan is refused, as where a layer has none."""
    try:
        patient = base.operate(Plan.parse(ALL_WITHOUT_ATTENTION, DEPTH)).model
    except Refused as error:
        return Outcome("exact", f"not without that of all layers: {_said(error)}")
    other = ids.clone()
    other[:, 0] = torch.where(ids[:, 0] == ids[:, 1], ids[:, 2], ids[:, 1])
    last = [patient(input_ids=x, use_cache=False).logits[:, -1] for x in (ids, other)]
    if (far := _far(*last)) > TOLERANCE:
        return Outcome("wrong", f"positions depend on each other without attention, by {far:.1e}")
    return Outcome("exact")


@torch.no_grad()
def _full_and_cached(model: PreTrainedModel, ids: torch.Tensor, steps: int = STEPS):
    """Logits of one pass, and those of `steps` tokens one by one with the cache after a pass over
    the first few; None if the model has no cache to go on with. Of one text: RWKV's cache goes
    wrong with more."""
    ids = ids[:1, : BEGUN + steps]
    full = model(input_ids=ids, use_cache=False).logits
    try:
        out = model(input_ids=ids[:, :BEGUN], use_cache=True)
        logits = [out.logits]
        for k in range(BEGUN, ids.shape[1]):
            kept = _cache_of(out)
            out = model(input_ids=ids[:, k : k + 1], use_cache=True, **kept)
            logits.append(out.logits)
        return full, torch.cat(logits, dim=1)
    except Exception:
        return None


def _cache_of(out) -> dict:
    """What a model hands back to go on from, under the name that it takes it by."""
    for name in ("past_key_values", "cache_params", "state", "past_buckets_states"):
        if getattr(out, name, None) is not None:
            return {name: getattr(out, name)}
    raise LookupError("no cache")


def _far(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, in units of the spread of `b`; infinite for other shapes."""
    if a.shape != b.shape:
        return float("inf")
    return ((a - b).abs().max() / b.std().clamp(min=1e-3)).nan_to_num(float("inf")).item()


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, Refused) else f"{type(error).__name__}: {text}"[:300]
