"""Short runs on tiny models: a base, a plan, and settings that take a second or two."""

import pytest

from surgery import Base, Plan
from surgery.healing import Settings

TEXT = "It was a quiet day, and nobody had come to see the garden since the rain began. " * 2


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """What another run has measured or written doesn't reach this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYER_SURGERY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "held-out.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def base(tiny_folder):
    return Base.open(str(tiny_folder("llama")))


@pytest.fixture(scope="module")
def plan():
    return Plan.parse("0:2, 4:6", 6)


@pytest.fixture(scope="module")
def settings(held_out):
    """A function: settings of a short run, with some changed."""

    def make(**changes):
        short = dict(
            steps=8, batch=4, window=16, learning_rate=3e-3, warmup=2, sampled_tokens=256,
            evaluate_every=100, held_out=held_out,
        )  # fmt: skip
        return Settings(**{**short, **changes})

    return make
