"""What is right: patients beside checkpoints and oracle, memory, and all that computes weights.

Where the same kernels run on the same shapes, results have to be equal to the bit, in every dtype.
Where they don't (with a cache against without, a batch against its rows, a GPU against a CPU), sums
are added up in another order, and a tolerance is given: of a logit's standard deviation in float32,
and more in bfloat16, which keeps 8 bits of every number between two layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from unittest import mock

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from surgery import Base, Plan, RepairSettings, SurgeryError, devices, repair
from surgery.analysis import Sample, perplexity, scan
from surgery.architecture.inspect.layer_list import layer_list
from surgery.healing import HealingRun, Settings
from surgery.healing.evaluation import Evaluator
from surgery.patient import Patient
from surgery.weight_stats import count_tensor

from .models import Oracle
from .rows import Check, NotRun, Result
from .workplace import Workplace, on_device, on_the_cpu

FLOAT, HALF = torch.float32, torch.bfloat16
TOLERANCE = {FLOAT: 1e-3, HALF: 0.25}  # of the logits' standard deviation
WORDS = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. "
_BUFFERS = 1 << 16  # bytes that a patient may take: its rotary frequencies


def mixed(depth: int) -> Plan:
    """Layers dropped, moved and repeated."""
    return Plan.parse(f"0:2, 3:{depth - 1}, 2:4, {depth - 1}:{depth}", depth)


# ---------------------------------------------------------------------- patient and checkpoint


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
def _logits(model: PreTrainedModel, ids: torch.Tensor, **more) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False, **more).logits


def _equal(ours: torch.Tensor, theirs: torch.Tensor) -> Result:
    """Equal to the bit?"""
    off = 0.0 if torch.equal(ours, theirs) else _off(ours, theirs)
    same = torch.equal(ours, theirs)
    return Result(same, detail="equal to the bit" if same else f"{off:.2g} deviations apart")


def _off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, in standard deviations."""
    if ours.shape != theirs.shape:
        return math.inf
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().std())


def is_reloaded(place: Workplace, dtype: torch.dtype) -> Result:
    """The patient computes what its saved checkpoint computes."""
    patient, plain = _pair(place, dtype)
    ids = place.ids(24, 2)
    return _equal(_logits(patient.model, ids), _logits(plain, ids))


def is_oracle(place: Workplace, dtype: torch.dtype) -> Result:
    """The patient computes what the base's own layers compute in the plan's order."""
    base = place.base("small", dtype)
    plan, ids = mixed(base.depth), place.ids(24, 2)
    plain = place.plain(place.checkpoint("small", dtype))
    expected = Oracle(plain, plain.model.layers, ids).logits(plan.sources)
    return _equal(_logits(place.patient(base, plan).model, ids), expected)


def of_the_reference(place: Workplace) -> Result:
    """Both, of real weights: the base that the user named."""
    base = place.referred()
    plan, ids = mixed(base.depth), place.ids(24, 2)
    ours = _logits(place.patient(base, plan).model, ids)
    reloaded = _equal(ours, _logits(_saved(place, base, plan), ids))
    plain = place.plain(base.stored()[0], base.torch_dtype)
    layers = layer_list(plain, base.anatomy.stack.paths[0])
    by_hand = _equal(ours, Oracle(plain, layers, ids).logits(plan.sources))
    detail = f"{base.name}: reloaded {reloaded.detail}, oracle {by_hand.detail}"
    return Result(reloaded.passed and by_hand.passed, detail=detail)


def with_a_cache(place: Workplace, dtype: torch.dtype) -> Result:
    """Token by token: as the checkpoint to the bit, as without a cache within the tolerance."""
    (one, plain), ids = _pair(place, dtype), place.ids(24)
    patient = one.model
    ours, theirs = (_by_steps(model, ids, 16) for model in (patient, plain))
    off = _off(ours, _logits(patient, ids)[:, 15:])
    found = _equal(ours, theirs)
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
    for row, padding in enumerate((0, 5, 11)):
        ids[row, :padding], mask[row, :padding] = 0, 0
    more = dict(attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp_min(0))
    ours, theirs = (_logits(model, ids, **more) for model in (patient, plain))
    found = _equal(ours, theirs)
    off = max(_off(ours[row, p:], _logits(patient, ids[row : row + 1, p:])[0]) for row, p in _ROWS)
    passed = bool(found.passed) and off <= TOLERANCE[dtype]
    detail = f"{found.detail}; rows alone {off:.2g} deviations (limit {TOLERANCE[dtype]})"
    return Result(passed, detail=detail)


_ROWS = ((0, 0), (1, 5), (2, 11))  # of the padded batch: (row, tokens of padding)


def with_attention(place: Workplace, dtype: torch.dtype, how: str) -> Result:
    """The patient computes what the checkpoint computes, with one implementation of attention."""
    if how == "flash_attention_2" and not is_flash_attn_2_available():
        raise NotRun("needs the package flash-attn")
    (patient, plain), ids = _pair(place, dtype), place.ids(24, 2)
    usual = plain.config._attn_implementation
    try:
        for model in (patient.model, plain):
            model.set_attn_implementation(how)
        return _equal(_logits(patient.model, ids), _logits(plain, ids))
    finally:
        plain.set_attn_implementation(usual)


def initialised(place: Workplace, dtype: torch.dtype) -> Result:
    """A layer of every initialiser is that of the checkpoint; identity layers change nothing."""
    base, ids = place.base("small", dtype), place.ids(24)
    depth = base.depth
    every = "0:2, 1@identity, 2@no-attention, 2@no-mlp, 3@scale=0.5, 3@random, 3@average"
    plan = Plan.parse(f"{every}, 4:{depth}", depth)
    ours = _logits(place.patient(base, plan).model, ids)
    found = _equal(ours, _logits(_saved(place, base, plan), ids))
    more = Plan.parse(f"0:3, 2@identity, 3:{depth}", depth)
    same = _equal(_logits(place.patient(base, more).model, ids), _logits(base.model, ids))
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
    expected = _logits(patient, ids)
    torch._dynamo.reset()
    # Graphs alone are made here, and run as they are: a compiler's own kernels round otherwise.
    compiled = torch.compile(patient.forward, fullgraph=True, backend="eager")
    with torch.no_grad():
        found = _equal(compiled(input_ids=ids, use_cache=False).logits, expected)
    torch._dynamo.reset()
    return found


# ---------------------------------------------------------------------- memory


def copies_nothing(place: Workplace) -> Result:
    """Ten patients at once take no memory for weights."""
    base = place.base("small")
    weights = sum(p.nbytes for p in base.model.parameters())
    place.patient(base, mixed(base.depth))
    before = place.allocated()
    patients = [
        place.patient(base, Plan.whole(base.depth).drop(i % 5, i % 5 + 1)) for i in range(10)
    ]
    grown = place.allocated() - before
    detail = f"{grown / 1e3:.0f} kB for {len(patients)}, beside {weights / 1e6:.1f} MB of weights"
    return Result(grown <= _BUFFERS * len(patients) // 4, detail=detail)


def gives_back(place: Workplace) -> Result:
    """A base that is no longer used leaves no memory behind."""
    _logits(place.base("small").model, place.ids(8))  # the first products take a workspace
    place.release()
    before = place.allocated()
    folder = str(place.checkpoint("small"))
    base = on_device(Base(Base.open(folder).source), place.device)  # another one of these files
    weights = sum(p.nbytes for p in base.model.parameters())
    loaded = place.allocated() - before
    "".join(base.operate(mixed(base.depth)).stream(WORDS, max_new_tokens=4))
    del base
    left = place.allocated() - before
    detail = f"{loaded / 1e6:.1f} MB while loaded, {left / 1e3:.0f} kB afterwards"
    return Result(loaded >= weights and left <= weights // 100 + _BUFFERS, detail=detail)


def runs_out(place: Workplace) -> Result:
    """Memory that runs out gives a message, and leaves the base as it was."""
    base, ids = place.base("small"), place.ids(16)
    plan = mixed(base.depth)
    before = _logits(base.model, ids)
    patient = base.operate(plan)
    long = WORDS * (4 if place.tiny else 40)
    sample = Sample.of(base, [long * 2])
    messages = []
    with _full(place, base):
        for work in (
            lambda: list(patient.stream(long, max_new_tokens=8)),
            lambda: perplexity(patient.model, sample),
        ):
            try:
                work()
                messages.append("no error")
            except SurgeryError as error:
                messages.append(str(error))
    place.release()
    passed = all("ran out of memory" in message for message in messages)
    passed = passed and torch.equal(_logits(base.model, ids), before)
    list(patient.stream("and now", max_new_tokens=2))
    return Result(passed, detail="; ".join(messages))


@contextmanager
def _full(place: Workplace, base: Base) -> Iterator[None]:
    """While this lasts the device is full, but for a little that single tokens take. Without CUDA,
    and with tiny models, which need no more, its error is raised by every MLP."""
    if place.device.type != "cuda" or place.tiny:
        mlp = type(layer_list(base.model, base.anatomy.stack.paths[0])[0].mlp)
        error = torch.OutOfMemoryError("out of memory, as it is raised on CUDA")
        with mock.patch.object(mlp, "forward", side_effect=error):
            yield
        return
    place.release()
    total = torch.cuda.get_device_properties(place.device).total_memory
    # The allocator takes 2 MiB at a time for tensors of up to 1 MiB, and 20 MiB for larger ones.
    reserved = torch.cuda.memory_reserved(place.device) + (4 << 20)
    torch.cuda.set_per_process_memory_fraction(reserved / total, place.device)
    filled = []
    try:
        with suppress(torch.OutOfMemoryError):
            while True:
                size = (1 << 20) + 1
                filled.append(torch.empty(size, dtype=torch.uint8, device=place.device))
        yield
    finally:
        filled.clear()
        torch.cuda.set_per_process_memory_fraction(1.0, place.device)


def unchanged(place: Workplace) -> Result:
    """The bases that all of this was done with are those in their files, to the bit."""
    wrong, count = [], 0
    for dtype in (FLOAT, HALF):
        stored = load_file(place.checkpoint("small", dtype) / "model.safetensors")
        now = place.base("small", dtype).model.state_dict()
        count += len(stored)
        wrong += [n for n, tensor in stored.items() if not torch.equal(now[n].cpu(), tensor)]
    return Result(not wrong, detail=f"{wrong[0]} differs" if wrong else f"{count} tensors")


# ---------------------------------------------------------------------- measuring and training


def scans(place: Workplace, dtype: torch.dtype) -> Result:
    """Drop-one perplexities are those of the layers run by hand in plain transformers."""
    base = place.base("small", dtype)
    sample = Sample.of(base, [WORDS * 8], window=64, limit=128)
    with place.fresh_cache():
        found = scan(base, sample, scores=["drop_one", "block_influence"])
    plain = place.plain(place.checkpoint("small", dtype))
    windows = [torch.tensor([ids], device=place.device) for ids in sample.windows]
    oracles = [Oracle(plain, plain.model.layers, ids) for ids in windows]
    worst = 0.0
    for variant in found.drop_one:
        losses = [
            cross_entropy(
                by_hand.logits(variant.plan.sources)[0, :-1].float(), ids[0, 1:], reduction="none"
            )
            for by_hand, ids in zip(oracles, windows, strict=True)
        ]
        expected = float(torch.cat(losses).mean().exp())
        worst = max(worst, abs(variant.perplexity / expected - 1))
    limit = {FLOAT: 1e-4, HALF: 1e-2}[dtype]  # batches here, window by window there
    return Result(worst <= limit, detail=f"off by {worst:.1g} at most (limit {limit:g})")


def heals(place: Workplace, train: str) -> Result:
    """A healing run that is stopped and resumed gives the losses of one that isn't."""
    base = place.base("small")
    plan = Plan.whole(base.depth).drop(2, 3)
    text = place.folder / "text.txt"
    text.write_text(WORDS * 60, encoding="utf-8")
    dropout = 0.1 if train == "lora" else 0.0
    settings = Settings(
        text=str(text), steps=3, train=train, dropout=dropout, window=32, evaluate_every=3
    )
    evaluator = Evaluator(base, Sample.of(base, [WORDS * 3], limit=128))

    def run(name: str) -> HealingRun:
        return HealingRun(base, plan, settings, place.folder / name, evaluator=evaluator)

    whole, parts = run(f"whole-{train}"), run(f"parts-{train}")
    expected = [event.loss for event in whole]
    for event in parts:
        if event.step == 2:
            parts.stop()
    resumed = run(f"parts-{train}")
    found = [*parts.losses[:2], *(event.loss for event in resumed)]
    exact = found == expected
    worst = max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))
    # Backward passes of fused attention add up in no fixed order on a GPU.
    limit = 0.0 if place.device.type == "cpu" else 1e-2
    passed = worst <= limit and all(map(math.isfinite, found))
    detail = "the same losses to the bit" if exact else f"off by {worst:.1g} (limit {limit:g})"
    return Result(passed, detail=detail)


def repairs(place: Workplace) -> Result:
    """Fitted weights lower the error, are those that the CPU fits, and are saved as they are."""
    folder = place.checkpoint("small", FLOAT)
    base = place.base("small", FLOAT)
    plan = Plan.whole(base.depth).drop(2, 4)
    text = place.folder / "calibration.txt"
    text.write_text(" ".join(f"{i * 7919 % 10007}" for i in range(1200)), encoding="utf-8")
    settings = RepairSettings(text=str(text), tokens=2048)

    def repaired(base: Base):
        evaluator = Evaluator(base, Sample.of(base, [WORDS * 3], limit=128))
        return repair(base, plan, settings, evaluator=evaluator)

    here = repaired(base)
    errors = [(fit["error_before"], fit["error_after"]) for fit in here.facts["fits"]]
    lowered = bool(errors) and all(after <= before for before, after in errors)
    with on_the_cpu(folder) as other:
        there = repaired(other)
    off = max(
        float((here.tensors[n].cpu() - there.tensors[n].cpu()).norm() / there.tensors[n].norm())
        for n in here.tensors
    )
    ids = place.ids(24)
    plain = place.plain(here.save(place.folder / "saved", overwrite=True))
    saved = _equal(_logits(here.model, ids), _logits(plain, ids))
    passed = lowered and off <= 1e-2 and saved.passed
    detail = f"{len(errors)} fits; {off:.1g} from the CPU's (limit 0.01); reloaded {saved.detail}"
    return Result(passed, detail=detail)


def counts(place: Workplace) -> Result:
    """Values are counted on the device as on the CPU, NaN and infinities among them."""
    random, wrong = torch.Generator().manual_seed(0), []
    kinds = [HALF, torch.float16, FLOAT, torch.float8_e4m3fn]
    if place.device.type == "mps":
        kinds.pop()  # it has none
    for dtype in kinds:
        values = torch.randn(200_000, generator=random)
        values[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
        values = values.to(dtype)
        ours, theirs = count_tensor(values.to(place.device)), count_tensor(values)
        pairs = ((ours.values, theirs.values), (ours.counts, theirs.counts))
        sizes = [(one.size, one.nan, one.above, one.below) for one in (ours, theirs)]
        if sizes[0] != sizes[1] or not all((a == b).all() for a, b in pairs):
            wrong.append(str(dtype))
    detail = f"wrong: {', '.join(wrong)}" if wrong else f"{len(kinds)} dtypes"
    return Result(not wrong, detail=detail)


def spreads(place: Workplace) -> Result:
    """A patient of a base that is spread over two GPUs computes what it computes on one."""
    rooms = devices.accelerators()
    if len(rooms) < 2:
        raise NotRun("needs two GPUs")
    base, ids = place.base("small"), place.ids(24)
    plan = mixed(base.depth)
    expected = _logits(place.patient(base, plan).model, ids)
    half = int(0.7 * base.memory_bytes / devices.HEADROOM)
    small = [devices.Room(room.device, half) for room in rooms[:2]]
    with mock.patch("surgery.loading.accelerators", lambda: small):
        spread = Base(Base.open(str(place.checkpoint("small"))).source)
        spread.load()
    on = {str(p.device) for p in spread.model.parameters()}
    found = _logits(spread.operate(plan).model, ids).to(expected.device)
    off = _off(found, expected)
    return Result(len(on) > 1 and off <= TOLERANCE[HALF], detail=f"{on}: {off:.2g} deviations")


def _each(name: str, run: Callable[..., Result]) -> list[Check]:
    """One check for each dtype."""
    names = {FLOAT: "float32", HALF: "bfloat16"}
    return [Check(f"{name}, {names[d]}", partial(run, dtype=d)) for d in (FLOAT, HALF)]


CHECKS: list[Check] = [
    *_each("patient = reloaded checkpoint", is_reloaded),
    *_each("patient = oracle", is_oracle),
    Check("patient = reloaded = oracle, named base", of_the_reference),
    *_each("with the KV cache", with_a_cache),
    *_each("with a static cache", with_a_static_cache),
    *_each("padded batches", in_batches),
    *_each("eager attention", partial(with_attention, how="eager")),
    *_each("sdpa", partial(with_attention, how="sdpa")),
    Check("flash attention", partial(with_attention, dtype=HALF, how="flash_attention_2")),
    *_each("initialisers", initialised),
    *_each("streamed text = generate", generates),
    Check("ten patients share the weights", copies_nothing),
    Check("memory is given back", gives_back),
    Check("out of memory", runs_out),
    *_each("scan = layers by hand", scans),
    Check("healing resumes, seams", partial(heals, train="seams")),
    Check("healing resumes, LoRA with dropout", partial(heals, train="lora")),
    Check("repair", repairs),
    Check("counting weights", counts),
    Check("several GPUs", spreads),
    Check("compiles as one graph", compiles),
    Check("the bases are unchanged", unchanged),
]
