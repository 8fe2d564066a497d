"""What is right of longer work: scans, healing, repairs, counts of weights, several GPUs."""

from __future__ import annotations

import math
from unittest import mock

import torch
from torch.nn.functional import cross_entropy

from surgery import Base, Plan, RepairSettings, repair
from surgery.analysis import Sample, scan
from surgery.healing import HealingRun, Settings
from surgery.healing.evaluation import Evaluator
from surgery.memory import devices
from surgery.weight_stats import count_tensor

from .models import Oracle
from .patients import FLOAT, HALF, TOLERANCE, WORDS, deviations, equal, logits_of, mixed
from .rows import NotRun, Result
from .workplace import Workplace, on_the_cpu


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
    saved = equal(logits_of(here.model, ids), logits_of(plain, ids))
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
    expected = logits_of(place.patient(base, plan).model, ids)
    half = int(0.7 * base.memory_bytes / devices.HEADROOM)
    small = [devices.Room(room.device, half) for room in rooms[:2]]
    with mock.patch("surgery.loading.accelerators", lambda: small):
        spread = Base(Base.open(str(place.checkpoint("small"))).source)
        spread.load()
    on = {str(p.device) for p in spread.model.parameters()}
    found = logits_of(spread.operate(plan).model, ids).to(expected.device)
    off = deviations(found, expected)
    return Result(len(on) > 1 and off <= TOLERANCE[HALF], detail=f"{on}: {off:.2g} deviations")
