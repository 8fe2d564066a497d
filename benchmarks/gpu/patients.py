"""What is right of patients: their logits and texts, beside their checkpoints and the oracle.

Where the same kernels run on the same shapes, results have to be equal to the bit, in every dtype.
Where they don't (with a cache against without, a batch against its rows, a GPU against a CPU), sums
are added up in another order, and a tolerance is given: of a logit's standard deviation in float32,
and more in bfloat16, which keeps 8 bits of every number between two layers.
"""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from surgery import Base, Plan
from surgery.architecture.inspect.layer_list import layer_list
from surgery.patient import Patient

from .models import Oracle
from .rows import NotRun, Result
from .workplace import Workplace

FLOAT, HALF = torch.float32, torch.bfloat16
TOLERANCE = {FLOAT: 1e-3, HALF: 0.25}  # of the logits' standard deviation
_PADDING = (0, 5, 11)  # tokens before each row of the padded batch
WORDS = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. "


def mixed(depth: int) -> Plan:
    """Layers dropped, moved and repeated."""
    return Plan.parse(f"0:2, 3:{depth - 1}, 2:4, {depth - 1}:{depth}", depth)


def _saved(place: Workplace, base: Base, plan: Plan) -> PreTrainedModel:
    """The plan's checkpoint, as plain transformers loads it."""
    out = base.save(plan, place.folder / "saved", overwrite=True)
    return place.plain(out)


def _pair(place: Workplace, dtype: torch.dtype) -> tuple[Patient, PreTrainedModel]:
    """The patient of a mixed plan, and its checkpoint, which is made once."""
    base = place.base("small", dtype)
    plan = mixed(base.depth)
    return place.patient(base, plan), place.once(
        ("saved", dtype), lambda: _saved(place, base, plan)
    )


@torch.no_grad()
def logits_of(model: PreTrainedModel, ids: torch.Tensor, **more) -> torch.Tensor:
    """The logits of one pass without a cache: (batch, length, vocabulary)."""
    return model(input_ids=ids, use_cache=False, **more).logits


def equal(ours: torch.Tensor, theirs: torch.Tensor) -> Result:
    """Equal to the bit?"""
    if torch.equal(ours, theirs):
        return Result(True, detail="equal to the bit")
    return Result(False, detail=f"{deviations(ours, theirs):.2g} deviations apart")


def deviations(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, in standard deviations."""
    if ours.shape != theirs.shape:
        return math.inf
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().std())


def is_reloaded(place: Workplace, dtype: torch.dtype) -> Result:
    """The patient computes what its saved checkpoint computes."""
    patient, plain = _pair(place, dtype)
    ids = place.ids(24, 2)
    return equal(logits_of(patient.model, ids), logits_of(plain, ids))


def is_oracle(place: Workplace, dtype: torch.dtype) -> Result:
    """The patient computes what the base's own layers compute in the plan's order."""
    base = place.base("small", dtype)
    plan, ids = mixed(base.depth), place.ids(24, 2)
    plain = place.plain(place.checkpoint("small", dtype))
    expected = Oracle(plain, plain.model.layers, ids).logits(plan.sources)
    return equal(logits_of(place.patient(base, plan).model, ids), expected)


def of_the_reference(place: Workplace) -> Result:
    """Both, of real weights: the base that the user named."""
    base = place.referred()
    plan, ids = mixed(base.depth), place.ids(24, 2)
    ours = logits_of(place.patient(base, plan).model, ids)
    reloaded = equal(ours, logits_of(_saved(place, base, plan), ids))
    plain = place.plain(base.stored()[0], base.torch_dtype)
    layers = layer_list(plain, base.anatomy.stack.paths[0])
    by_hand = equal(ours, Oracle(plain, layers, ids).logits(plan.sources))
    detail = f"{base.name}: reloaded {reloaded.detail}, oracle {by_hand.detail}"
    return Result(reloaded.passed and by_hand.passed, detail=detail)


def with_a_cache(place: Workplace, dtype: torch.dtype) -> Result:
    """Token by token: as the checkpoint to the bit, as without a cache within the tolerance."""
    (one, plain), ids = _pair(place, dtype), place.ids(24)
    patient = one.model
    ours, theirs = (_by_steps(model, ids, 16) for model in (patient, plain))
    off = deviations(ours, logits_of(patient, ids)[:, 15:])
    found = equal(ours, theirs)
    passed = bool(found.passed) and off <= TOLERANCE[dtype]
    detail = f"{found.detail}; without a cache {off:.2g} deviations (limit {TOLERANCE[dtype]})"
    return Result(passed, detail=detail)


@torch.no_grad()
def _by_steps(model: PreTrainedModel, ids: torch.Tensor, first: int) -> torch.Tensor:
    """Logits from token `first` on, each computed from the cache of those before."""
    out = model(input_ids=ids[:, :first], use_cache=True)
    parts = [out.logits[:, -1:]]
    for at in range(first, ids.shape[1]):
        out = model(ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
        parts.append(out.logits)
    return torch.cat(parts, 1)


def with_a_static_cache(place: Workplace, dtype: torch.dtype) -> Result:
    """`generate` with a static cache writes what the checkpoint writes with one."""
    (one, plain), ids = _pair(place, dtype), place.ids(16, 2)
    patient = one.model
    options = dict(max_new_tokens=12, do_sample=False, pad_token_id=0)
    static = dict(options, cache_implementation="static", disable_compile=True)
    ours, theirs = (model.generate(ids, **static) for model in (patient, plain))
    dynamic = patient.generate(ids, **options)
    share = float((ours == dynamic).float().mean())
    detail = f"{share:.0%} of the tokens are those of a dynamic cache"
    return Result(torch.equal(ours, theirs), detail=detail)


def in_batches(place: Workplace, dtype: torch.dtype) -> Result:
    """A padded batch: as the checkpoint to the bit, as its rows alone within the tolerance."""
    (one, plain), ids = _pair(place, dtype), place.ids(24, 3)
    patient = one.model
    mask = torch.ones_like(ids)
    for row, padding in enumerate(_PADDING):
        ids[row, :padding], mask[row, :padding] = 0, 0
    more = dict(attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp_min(0))
    ours, theirs = (logits_of(model, ids, **more) for model in (patient, plain))
    found = equal(ours, theirs)
    off = 0.0
    for row, padding in enumerate(_PADDING):
        alone = logits_of(patient, ids[row : row + 1, padding:])[0]
        off = max(off, deviations(ours[row, padding:], alone))
    passed = bool(found.passed) and off <= TOLERANCE[dtype]
    detail = f"{found.detail}; rows alone {off:.2g} deviations (limit {TOLERANCE[dtype]})"
    return Result(passed, detail=detail)


def with_attention(place: Workplace, dtype: torch.dtype, how: str) -> Result:
    """The patient computes what the checkpoint computes, with one implementation of attention."""
    if how == "flash_attention_2" and not is_flash_attn_2_available():
        raise NotRun("needs the package flash-attn")
    (patient, plain), ids = _pair(place, dtype), place.ids(24, 2)
    usual = plain.config._attn_implementation
    try:
        for model in (patient.model, plain):
            model.set_attn_implementation(how)
        return equal(logits_of(patient.model, ids), logits_of(plain, ids))
    finally:
        plain.set_attn_implementation(usual)


def initialised(place: Workplace, dtype: torch.dtype) -> Result:
    """A layer of every initialiser is that of the checkpoint; identity layers change nothing."""
    base, ids = place.base("small", dtype), place.ids(24)
    depth = base.depth
    every = "0:2, 1@identity, 2@no-attention, 2@no-mlp, 3@scale=0.5, 3@random, 3@average"
    plan = Plan.parse(f"{every}, 4:{depth}", depth)
    ours = logits_of(place.patient(base, plan).model, ids)
    found = equal(ours, logits_of(_saved(place, base, plan), ids))
    more = Plan.parse(f"0:3, 2@identity, 3:{depth}", depth)
    same = equal(logits_of(place.patient(base, more).model, ids), logits_of(base.model, ids))
    detail = f"reloaded {found.detail}; identity and base {same.detail}"
    return Result(bool(found.passed and same.passed), detail=detail)


def generates(place: Workplace, dtype: torch.dtype) -> Result:
    """Streamed text has the tokens of `generate`; a seed gives the same text twice."""
    patient, plain = _pair(place, dtype)
    base = patient.base
    ids = torch.tensor([base.tokenizer(WORDS)["input_ids"]], device=place.device)
    options = dict(max_new_tokens=24, do_sample=False, pad_token_id=0)
    expected = plain.generate(ids, **options)[0, ids.shape[1] :].tolist()
    stream = patient.stream(WORDS, max_new_tokens=24, greedy=True)
    list(stream)
    drawn = ["".join(patient.stream(WORDS, max_new_tokens=24, seed=s)) for s in (1, 1, 2)]
    passed = stream.ids == expected and drawn[0] == drawn[1] != drawn[2]
    detail = "" if passed else f"{stream.ids} against {expected}; {drawn}"
    return Result(passed, detail=detail or "24 tokens, greedy and with a seed")


def compiles(place: Workplace) -> Result:
    """torch.compile takes the patient's forward pass as one graph, as it takes the checkpoint's."""
    base = place.base("small")
    plan, ids = mixed(base.depth), place.ids(16)
    patient = place.patient(base, plan).model
    expected = logits_of(patient, ids)
    torch._dynamo.reset()
    # Graphs alone are made here, and run as they are: a compiler's own kernels round otherwise.
    compiled = torch.compile(patient.forward, fullgraph=True, backend="eager")
    with torch.no_grad():
        found = equal(compiled(input_ids=ids, use_cache=False).logits, expected)
    torch._dynamo.reset()
    return found
