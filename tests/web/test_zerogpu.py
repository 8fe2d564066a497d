"""ZeroGPU as far as it can be had without one: all passes through pickle, as it does there."""

import pickle
import sys
from types import SimpleNamespace

import pytest
from updates import run

from components.panels.talk.talk_store import TalkStore
from components.panels.talk.wiring import only_status, talk
from components.services import zerogpu
from components.services.services import Services
from components.services.zerogpu import Line, Stream, ZeroGpu
from surgery import Base, Plan, SurgeryError
from surgery.memory import devices
from surgery.operation import Operation

SETTINGS = dict(greedy=True, chat=False, max_new_tokens=8, seed=0, temperature=0.8, top_p=0.95)


def lending(asked):
    """A `spaces` that lends nothing, pickles arguments and results, and notes durations."""

    def GPU(duration):
        def decorate(work):
            def run(*args):
                args = pickle.loads(pickle.dumps(args))
                asked.append(duration(*args))
                for value in work(*args):
                    yield pickle.loads(pickle.dumps(value))

            return run

        return decorate

    return SimpleNamespace(GPU=GPU, __spec__=SimpleNamespace())


@pytest.fixture
def lent(monkeypatch):
    """A Space's `spaces` package, or so it seems: the durations that were requested."""
    asked: list = []
    monkeypatch.setitem(sys.modules, "spaces", lending(asked))
    monkeypatch.setattr(zerogpu, "find_spec", lambda name: True)
    return asked


@pytest.fixture
def space(lent, bases):
    """Services on ZeroGPU."""
    return Services.of(bases=bases, gpu=ZeroGpu(bases))


def test_both_speak_as_they_do_at_home(services, space, lent, tiny_folder):
    spec = str(tiny_folder("llama"))
    plan = Plan.parse("0:2, 4:6", 6)
    arguments = (Operation(spec, plan), "hello", True, False, 8, 0, 0.8, 0.95)
    stores = TalkStore(), TalkStore()
    *_, (_, there) = talk(space, *arguments, store=stores[0])
    *_, (_, here) = talk(services, *arguments, store=stores[1])
    assert stores[0].answers.sides == stores[1].answers.sides  # tokens that can be measured
    for who in ("base", "patient"):
        for key in ("text", "tokens", "finished", "plan"):
            assert there[who][key] == here[who][key]
    assert there["patient"]["tokens"] == 8 and not there["running"]
    assert there["patient"]["pieces"] == here["patient"]["pieces"] != []
    assert lent == [pytest.approx(20 + 0.1 * 2 * 8)]


def test_what_goes_wrong_there_is_said_here(space, tiny_folder):
    operation = Operation(str(tiny_folder("llama")), Plan.whole(6))
    arguments = (operation, "x" * 400, True, False, 8, 0, 0.8, 0.95)
    *_, (status, _) = run(space, talk(space, *arguments), only_status)
    assert status["failed"] and "context holds 256" in status["text"]


def test_a_gpu_that_is_taken_away_is_said():
    cut = iter([("it", "so", {"tokens": 1}), ("it", " far", {"tokens": 2})])
    stream = Stream("it", Line(cut, ["it"]))
    assert [next(stream), next(stream)] == ["so", " far"]
    with pytest.raises(SurgeryError, match="reclaimed"):
        next(stream)


def test_one_is_closed_with_all(space, tiny_folder):
    spec = str(tiny_folder("llama"))
    made = space.gpu.streams(spec, {"a": "0:6", "b": "0:3"}, "hello", SETTINGS)
    assert isinstance(next(made["a"]), str) and isinstance(next(made["b"]), str)
    made["a"].close()
    with pytest.raises(SurgeryError):
        list(made["b"])
    assert not space.bases.used


def test_without_the_package_it_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(zerogpu, "find_spec", lambda name: None)
    assert zerogpu.lent(zerogpu.generate) is zerogpu.generate


def test_a_quota_is_not_asked_for_more_than_it_has():
    assert zerogpu.seconds("x", {"a": "", "b": ""}, "", {"max_new_tokens": 10**6}) == 120


def test_the_generator_equals_the_library(bases, tiny_folder):
    spec = str(tiny_folder("llama"))
    pieces = list(zerogpu.generate(bases, spec, {"it": "0:4"}, "hello", SETTINGS))
    stream = Base.open(spec).operate(Plan.parse("0:4", 6)).stream("hello", **SETTINGS)
    assert "".join(piece for _, piece, _ in pieces) == "".join(stream)
    assert pieces[-1][2]["finished"] == "length"


@pytest.fixture
def pretended(monkeypatch):
    """A Space's own process: `spaces` lets PyTorch say that there is a GPU."""
    monkeypatch.setattr(devices, "_hidden", False)
    monkeypatch.setattr(zerogpu, "ON", True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda i: (40 << 30, 42 << 30))
    monkeypatch.setattr("torch.cuda.memory_stats", lambda i: {})


def test_the_spaces_own_process_computes_on_the_cpu(pretended, lent, bases, tiny_folder):
    """Quality, X-ray and the rest run there, and would fail on a GPU that isn't there."""
    assert [room.device for room in devices.accelerators()] == ["cuda:0"]
    ZeroGpu(bases)
    assert devices.accelerators() == []
    spec = str(tiny_folder("llama"))
    assert bases.load(spec, lambda *_: None).device == "cpu"


def test_where_the_gpu_is_lent_weights_of_the_space_are_loaded_again(
    lent, bases, tiny_folder, monkeypatch
):
    spec = str(tiny_folder("llama"))
    base = bases.load(spec, lambda *_: None)
    before, seen = base.model, []

    def there():
        seen.append(devices._hidden)
        return [devices.Room("cuda:0", 1 << 30)]

    monkeypatch.setattr(devices, "_hidden", True)
    monkeypatch.setattr(zerogpu, "accelerators", there)
    assert list(zerogpu.generate(bases, spec, {"it": "0:4"}, "hello", SETTINGS))
    assert seen == [False] and devices._hidden
    assert base.model is not before
