"""How fast it is, beside what plain transformers or PyTorch, or the hardware, reaches."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from surgery import Base, Plan
from surgery.analysis import Sample, scan
from surgery.healing import HealingRun, Settings
from surgery.healing.cost import measured_peak
from surgery.healing.evaluation import Evaluator
from surgery.healing.student import trained_layers
from surgery.patient import Patient

from .models import config_of
from .patients import WORDS
from .rows import Check, NotRun, Result
from .workplace import Workplace, on_device

_PROMPT = (WORDS * 4)[:64]  # as many tokens
_CHUNK = 8 << 20


# ---------------------------------------------------------------------- text


def _shares(place: Workplace, ours: Callable[[], object], plain: Callable[[], object]) -> list:
    """Seconds of both, the best of three; they take turns after one that warms up."""
    works = (ours, plain)
    for work in works:
        work()
    rounds = [[place.clock(work) for work in works] for _ in range(3)]
    return [min(times) for times in zip(*rounds, strict=True)]


def _cut(depth: int) -> Plan:
    """A quarter of the layers left out, in the middle."""
    start, size = depth // 2, max(1, depth // 4)
    return Plan.whole(depth).drop(start, start + size)


def _plain_cut(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """The same in plain PyTorch; changes the model."""
    model.model.layers = nn.ModuleList(model.model.layers[i] for i in plan.sources)
    for p, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = p
    model.config.num_hidden_layers = len(plan)
    return model


def text(place: Workplace, cut: bool, sampled: bool = False) -> Result:
    """Tokens per second of a streamed text, against `generate` of transformers."""
    base = place.base("1B")
    plan = _cut(base.depth) if cut else Plan.whole(base.depth)
    patient = place.patient(base, plan)
    plain = _plain_cut(place.plain(place.checkpoint("1B")), plan)
    new = 16 if place.tiny else 128
    ids = torch.tensor([base.tokenizer(_PROMPT)["input_ids"]], device=place.device)
    options = dict(max_new_tokens=new, do_sample=sampled, pad_token_id=0)
    if sampled:
        options |= dict(temperature=0.8, top_p=0.95, top_k=0)
    ours, theirs = _shares(
        place,
        lambda: list(patient.stream(_PROMPT, max_new_tokens=new, greedy=not sampled)),
        lambda: plain.generate(ids, **options),
    )
    detail = f"{len(plan)} layers, {new} tokens after {ids.shape[1]}"
    return Result(None, new / ours, new / theirs, "tokens/s", detail, wanted=0.95)


def compiled_text(place: Workplace) -> Result:
    """What a static cache and torch.compile would win: `generate` with them, against our stream."""
    if place.device.type != "cuda" and not place.tiny:
        raise NotRun("needs CUDA")
    base = place.base("1B")
    patient = place.patient(base, Plan.whole(base.depth))
    plain = place.plain(place.checkpoint("1B"))
    new = 16 if place.tiny else 128
    ids = torch.tensor([base.tokenizer(_PROMPT)["input_ids"]], device=place.device)
    options = dict(max_new_tokens=new, do_sample=False, pad_token_id=0)
    static = dict(options, cache_implementation="static", disable_compile=place.tiny)
    ours, theirs = _shares(
        place,
        lambda: list(patient.stream(_PROMPT, max_new_tokens=new, greedy=True)),
        lambda: plain.generate(ids, **static),
    )
    how = "static cache alone" if place.tiny else "static cache, compiled"
    return Result(None, new / ours, new / theirs, "tokens/s", f"beside: {how}")


def both_texts(place: Workplace) -> Result:
    """Seconds of base and patient streamed in turns, against one after the other."""
    base = place.base("1B")
    sides = [place.patient(base, plan) for plan in (Plan.whole(base.depth), _cut(base.depth))]
    new = 16 if place.tiny else 64

    def stream(patient: Patient) -> Iterator[str]:
        return patient.stream(_PROMPT, max_new_tokens=new, greedy=True)

    def at_once() -> None:
        list(itertools.zip_longest(*map(stream, sides)))

    together, apart = _shares(place, at_once, lambda: [list(stream(side)) for side in sides])
    return Result(None, together, apart, "s", f"{new} tokens each", wanted=1.05, less=True)


# ---------------------------------------------------------------------- operating, loading


def operate(place: Workplace, shape: str) -> Result:
    """Milliseconds for a runnable patient, against transformers building the skeleton alone."""
    base = place.base(shape)
    place.patient(base, _cut(base.depth))
    plans = iter([Plan.whole(base.depth).drop(1, 2 + i) for i in range(1, 5)])
    ours = min(place.clock(lambda: place.patient(base, next(plans))) for _ in range(4))

    def skeleton() -> None:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config_of(shape, place.tiny))

    theirs = place.best(skeleton)
    return Result(None, 1e3 * ours, 1e3 * theirs, "ms", "plans never seen before", 1.0, less=True)


def loading(place: Workplace) -> Result:
    """GB/s from the disk to the device, against reading the same files and nothing else."""
    folder = place.checkpoint("7B")
    place.forget()
    files = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    buffer = bytearray(_CHUNK)

    def read() -> None:
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    _forget_pages(files)
    plain = place.clock(read)
    _forget_pages(files)
    bases = []

    def load() -> None:
        bases.append(on_device(Base(Base.open(str(folder)).source), place.device))

    ours = place.clock(load)
    bases.clear()
    detail = f"{size / 1e9:.2f} GB, beside: reading the files"
    return Result(None, size / ours / 1e9, size / plain / 1e9, "GB/s", detail, wanted=0.8)


def _forget_pages(files: list[Path]) -> None:
    """Have the system drop these files from main memory, where it can."""
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---------------------------------------------------------------------- arithmetic


def _peak(place: Workplace) -> float:
    """FLOP/s of large products in bfloat16."""
    size, times = (256, 4) if place.tiny else (8192, 8)
    a = torch.ones(size, size, dtype=torch.bfloat16, device=place.device)
    b = a.clone()

    def products() -> None:
        for _ in range(times):
            a @ b

    return times * 2 * size**3 / place.best(products, 5)


def peak(place: Workplace) -> Result:
    """What estimates of healing take for the device's peak, against a larger measurement."""
    ours, theirs = measured_peak(place.base("small")), _peak(place)
    return Result(None, ours / 1e12, theirs / 1e12, "TFLOP/s", "products in bfloat16", wanted=0.7)


def scanned(place: Workplace) -> Result:
    """TFLOP/s of a drop-one scan, against the device's peak in bfloat16."""
    base = place.base("7B")
    tokens = 128 if place.tiny else 2048
    sample = Sample.of(base, [WORDS * 64], limit=tokens)
    with place.fresh_cache():  # what was measured is not measured again
        scan(base, Sample.of(base, [WORDS], limit=32), scores=["drop_one"])
        found = []
        seconds = place.clock(lambda: found.append(scan(base, sample, scores=["drop_one"])))
    layer = sum(p.numel() for p in base.model.model.layers[0].parameters())
    head = base.model.lm_head.weight.numel()
    heads = 1 + len(found[0].drop_one)
    flop = 2 * tokens * (found[0].layer_forwards * layer + heads * head)
    detail = f"{tokens:,} tokens, {base.depth} layers, {seconds:.2f} s"
    speed = flop / seconds / 1e12
    return Result(None, speed, _peak(place) / 1e12, "TFLOP/s", detail, wanted=0.5)


def healing(place: Workplace) -> Result:
    """Tokens per second of healing steps, against the same steps in a plain loop."""
    base = place.base("1B")
    plan = _cut(base.depth)
    text = place.folder / "healing.txt"
    steps, window = (5, 32) if place.tiny else (8, 256)
    settings = Settings(
        text=str(text), steps=steps, batch=4, window=window, radius=2, evaluate_every=steps
    )
    text.write_text(WORDS * (4 * steps * window // len(WORDS) + 2), encoding="utf-8")
    evaluator = Evaluator(base, Sample.of(base, [WORDS * 3], limit=64))
    folder = place.folder / "healing"
    run = HealingRun(base, plan, settings, folder, evaluator=evaluator)
    events = iter(run)
    times = [place.clock(lambda: next(events)) for _ in range(steps - 1)]  # the last evaluates
    ours = settings.tokens_per_step / min(times[1:])
    list(events)
    del run
    place.release()
    teacher = place.plain(place.checkpoint("1B"))
    step = _plain_step(place, teacher, plan, settings)
    step()
    theirs = settings.tokens_per_step / min(place.clock(step) for _ in range(steps - 2))
    detail = f"{len(trained_layers(plan, settings))} of {len(plan)} layers, batch 4 × {window}"
    return Result(None, ours, theirs, "tokens/s", detail, wanted=0.95)


def _plain_step(
    place: Workplace, teacher: PreTrainedModel, plan: Plan, settings: Settings
) -> Callable[[], None]:
    """A step of distillation in plain PyTorch: frozen layers in bfloat16, trained ones in float32
    under autocast."""
    student = _plain_cut(copy.deepcopy(teacher), plan).requires_grad_(False)
    for i in trained_layers(plan, settings):
        student.model.layers[i].float().requires_grad_(True)
    weights = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.peak_rate())
    ids = place.ids(settings.window, settings.batch)

    def step() -> None:
        with torch.autocast(place.device.type, torch.bfloat16):
            found = student(input_ids=ids, use_cache=False).logits
            with torch.no_grad():
                target = teacher(input_ids=ids, use_cache=False).logits
        loss = F.kl_div(
            found.flatten(0, 1).float().log_softmax(-1),
            target.flatten(0, 1).float().log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
        loss.backward()
        nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())

    return step


# What takes longest comes last.
CHECKS: list[Check] = [
    Check("peak, as estimates measure it", peak),
    Check("text of the base, 1B", partial(text, cut=False)),
    Check("text of a patient, 1B", partial(text, cut=True)),
    Check("text with a seed, 1B", partial(text, cut=False, sampled=True)),
    Check("both texts at once, 1B", both_texts),
    Check("healing step, 1B", healing),
    Check("operate, 1B", partial(operate, shape="1B")),
    Check("operate, 7B", partial(operate, shape="7B")),
    Check("drop-one scan, 7B", scanned),
    Check("loading, 7B", loading),
    Check("static cache and torch.compile, 1B", compiled_text),
]
