"""Memory that runs out: it is said with what to do, nothing is held, and the base stays usable."""

import weakref

import pytest
import tiny
import torch
from transformers.models.llama import modeling_llama

from surgery import Base, BaseError, Plan, SurgeryError
from surgery.analysis import Sample, compare, perplexity, scan
from surgery.healing import HealingRun, Settings
from surgery.loading import auto_class
from surgery.memory.out_of_memory import memory_explained, memory_message

CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 1.20 GiB is free."
)
WORDS = "the quick brown fox jumps over the lazy dog " * 8


@pytest.fixture
def base(tiny_folder):
    return Base.open(str(tiny_folder("llama")))


@pytest.fixture
def full(monkeypatch):
    """Every MLP finds the GPU full. The list has weak references to what it had made by then."""
    made: list[weakref.ref] = []

    def forward(self, x):
        half = self.gate_proj(x)
        made.append(weakref.ref(half))
        raise torch.OutOfMemoryError(str(CUDA)) from None

    with monkeypatch.context() as patched:
        patched.setattr(modeling_llama.LlamaMLP, "forward", forward)
        yield made


def _stream(base, folder):
    "".join(base.operate(Plan.parse("0:4", 6)).stream("hello", max_new_tokens=4))


def _perplexity(base, folder):
    perplexity(base.operate(Plan.parse("0:4", 6)).model, Sample.of(base, [WORDS], limit=64))


def _scan(base, folder):
    scan(base, Sample.of(base, [WORDS], limit=64), scores=["drop_one"])


def _compare(base, folder):
    compare(base, Plan.parse("0:4", 6), Sample.of(base, [WORDS], limit=64))


@pytest.mark.parametrize("work", [_stream, _perplexity, _scan, _compare])
def test_it_is_said_and_the_base_stays_usable(base, full, work, tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    with pytest.raises(SurgeryError) as caught:
        work(base, tmp_path)
    assert str(caught.value).startswith(
        "The GPU ran out of memory (2.00 GiB more were needed). "
    ) and str(caught.value).endswith(".")
    # The error is still there, and holds nothing that the pass had made.
    assert full and all(ref() is None for ref in full)


def test_a_first_scan_says_it(request, tiny_folder, tmp_path, monkeypatch):
    """It runs a pass to see whether layers can be run one by one."""
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    base = Base(Base.open(str(tiny_folder("llama"))).source)  # not scanned by another test
    assert base.anatomy.layer_inputs is not None  # the shapes are known
    full = request.getfixturevalue("full")
    with pytest.raises(SurgeryError, match="The GPU ran out of memory"):
        _scan(base, tmp_path)
    assert full and all(ref() is None for ref in full)


def test_afterwards_the_base_computes_as_before(base, monkeypatch):
    ids = tiny.tokens()
    before = base.operate(Plan.whole(6)).model(input_ids=ids).logits
    with monkeypatch.context() as patched:
        patched.setattr(modeling_llama.LlamaMLP, "forward", lambda *_: (_ for _ in ()).throw(CUDA))
        with pytest.raises(SurgeryError):
            _stream(base, None)
    assert torch.equal(base.operate(Plan.whole(6)).model(input_ids=ids).logits, before)


def test_a_healing_step_says_it_and_can_be_tried_again(base, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text(WORDS * 20)
    settings = Settings(text=str(text), steps=2, window=16, batch=2, evaluate_every=9)
    run = HealingRun(base, Plan.parse("0:2, 4:6", 6), settings, tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(modeling_llama.LlamaMLP, "forward", lambda *_: (_ for _ in ()).throw(CUDA))
        with pytest.raises(SurgeryError, match="smaller batch size"):
            next(iter(run))
    assert all(p.grad is None for p in run.model.parameters())
    assert [event.step for event in run] == [1, 2]


def test_loading_says_it(tiny_folder, monkeypatch):
    base = Base(Base.open(str(tiny_folder("llama"))).source)  # not loaded by another test
    auto = auto_class(base.anatomy.whole)
    monkeypatch.setattr(auto, "from_pretrained", lambda *_, **__: (_ for _ in ()).throw(CUDA))
    with pytest.raises(BaseError, match=r"ran out of memory.*smaller model"):
        base.load()
    monkeypatch.undo()
    assert base.load() is base.model


def test_main_memory_that_runs_out_is_known_too():
    with (
        pytest.raises(SurgeryError, match=r"^The computer ran out of memory"),
        memory_explained("Close other programs."),
    ):
        torch.empty(1 << 58)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes cannot be multiplied"), ValueError("out of memory")]
)
def test_other_errors_are_left_alone(error):
    assert memory_message(error, "Do something.") == ""
    with pytest.raises(type(error), match=str(error)), memory_explained("Do something."):
        raise error
