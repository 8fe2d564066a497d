"""Estimates against the formulas that they are, and against published figures."""

import pytest
import tiny
import torch

from surgery import Base, Plan, SurgeryError
from surgery.compute import choice
from surgery.healing import REFERENCES, Settings, cost, estimate_cost
from surgery.healing.cost import Accelerator, memory, trained_parameters


def test_operations_hours_and_price(base, plan):
    settings = Settings(steps=10, batch=4, window=16)
    estimate = estimate_cost(
        base, plan, settings, accelerator="H100", devices=2, mfu=0.5, price=3.0
    )
    cut, whole = base.preview(plan), base.preview(Plan.whole(6))
    assert estimate.tokens == 640 and estimate.parameters == cut.parameters
    assert estimate.flops == 640 * (6 * cut.parameters + 2 * whole.parameters)
    assert estimate.hours == pytest.approx(estimate.flops / (989e12 * 0.5 * 3600 * 2))
    assert estimate.dollars == pytest.approx(estimate.hours * 2 * 3.0)
    plain = Settings(steps=10, batch=4, window=16, objective="next-token")
    assert estimate_cost(base, plan, plain, tokens=1000).flops == 6000 * cut.parameters


def test_the_lesson_s_figures_agree_with_one_another():
    """6·N·D of SOLAR's 10.7 billion parameters: both prices are about 1.55e-17 $ per FLOP."""
    for _, tokens, dollars in REFERENCES:
        assert dollars / (6 * 10_731_524_096 * tokens) == pytest.approx(1.55e-17, rel=0.01)


@pytest.mark.parametrize("train", ["seams", "lora", "all", "new"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_trains_is_counted_as_it_is_made(tiny_folder, family, train):
    from surgery.healing.student import make_student, trainable

    base, plan = Base.open(str(tiny_folder(family))), Plan.parse("0:3, 2@identity, 4:6", 6)
    settings = Settings(steps=1, train=train, rank=3)
    made = trainable(make_student(base.operate(plan), settings)).values()
    assert trained_parameters(base, plan, settings) == sum(p.numel() for p in made)


def test_memory_by_part(base, plan):
    settings = Settings(steps=1, batch=8, window=32, train="all")
    parts = memory(base, plan, settings)
    trained = trained_parameters(base, plan, settings)
    assert parts["trained weights"] == parts["gradients"] == 4 * trained
    assert parts["optimizer states"] == 8 * trained
    assert parts["weights of the base"] == 4 * base.counts.total
    for fewer in (dict(accumulate=4), dict(batch=2)):
        less = memory(base, plan, Settings(**{**settings.as_dict(), **fewer, "layers": ()}))
        assert less["activations"] * 4 == parts["activations"]
    assert memory(base, plan, settings, devices=4)["logits"] * 4 == parts["logits"]


def test_what_float32_takes_where_it_is_faster(tmp_path, plan, monkeypatch):
    """Copies of all weights, and activations of twice the size; on an accelerator neither."""
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    base, settings = Base.open(str(tmp_path)), Settings(steps=1)
    measured = []
    monkeypatch.setattr(cost, "_peaks", {})
    monkeypatch.setattr(cost, "_measured", lambda device, kind, _: measured.append(kind) or 1e12)
    parts, hours = {}, {}
    for dtype in ("stored", "float32"):
        monkeypatch.setenv(choice.VARIABLE, dtype)
        estimate = estimate_cost(base, plan, settings)
        parts[dtype], hours[dtype] = estimate.memory, estimate.hours
        assert "float32 copies" not in memory(base, plan, settings)
    assert measured == [torch.bfloat16, torch.float32]
    assert hours["float32"] == pytest.approx(hours["stored"] / 2)  # nearer to its peak
    stored, float32 = parts.values()
    assert float32["float32 copies"] == 4 * base.counts.total
    assert float32["activations"] == 2 * stored["activations"]
    assert float32["weights of the base"] == stored["weights of the base"] == 2 * base.counts.total
    assert estimate_cost(base, plan, settings, accelerator="L4").memory == stored


_NOT_TRAINING = ("weights of the base", "cache for writing")


def test_memory_while_the_base_writes(base, plan, monkeypatch):
    """It is a part as far as the training after it takes less."""
    settings = Settings(steps=1, batch=1, window=16)
    parts = memory(base, plan, settings)
    training = sum(parts[name] for name in parts if name not in _NOT_TRAINING)
    training -= parts["trained weights"]  # which are there already
    for writing, part in ((training, None), (training + 7, 7)):
        monkeypatch.setitem(memory.__globals__, "writing_bytes", lambda *_, size=writing: size)
        assert memory(base, plan, settings).get("cache for writing") == part


def test_minutes_are_what_they_are(base, plan):
    """The time is as it was said; the base writes in a third of it."""
    settings, read = Settings(minutes=30), Settings(minutes=30, text="a file")
    estimate, whole = (estimate_cost(base, plan, s, accelerator="L4") for s in (settings, read))
    assert estimate.hours == whole.hours == 0.5
    assert whole.dollars == pytest.approx(0.4)
    assert whole.flops == pytest.approx(1800 * 121e12 * 0.4, rel=1e-6)
    assert estimate.tokens == pytest.approx(0.65 * whole.tokens, abs=1)
    message = estimate_cost(base, plan, settings, tokens=whole.tokens, accelerator="L4")
    assert message.hours == pytest.approx(0.5) and message.flops == whole.flops


def test_whether_it_fits(base, plan, monkeypatch):
    small, large = Settings(steps=1), Settings(steps=1, batch=10**6, window=4096)
    assert estimate_cost(base, plan, small).fits and not estimate_cost(base, plan, large).fits
    needed = estimate_cost(base, plan, small).bytes
    for share, fits in ((0.88, True), (0.92, False)):  # nine tenths of the memory can be used
        monkeypatch.setitem(cost.ACCELERATORS, "mine", Accelerator(1e12, 1.0, needed / share))
        assert estimate_cost(base, plan, small, accelerator="mine").fits is fits
    for changes in (dict(accelerator="abacus"), dict(mfu=0.0), dict(devices=0)):
        with pytest.raises(SurgeryError):
            estimate_cost(base, plan, small, **changes)
