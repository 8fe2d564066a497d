"""What several test files need: tiny bases on disk, and the bundled model."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Tests run side by side, a process for each processor: more threads would only be in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import tiny
from hypothesis import HealthCheck, settings
from transformers.utils import logging

# How long an example takes says something of the machine, not of the code.
_ANY = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any machine", **_ANY)
settings.register_profile("thousands", max_examples=5000, **_ANY)
settings.load_profile("any machine")
logging.set_verbosity_error()
logging.disable_progress_bar()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A function: the folder of a family's tiny checkpoint, with a tokenizer."""
    made = {}

    def folder(family: str, **save_options):
        key = (family, *sorted(save_options.items()))
        if key not in made:
            path = tmp_path_factory.mktemp(family)
            tiny.model(family).save_pretrained(path, **save_options)
            tiny.tokenizer().save_pretrained(path)
            made[key] = path
        return made[key]

    return folder


@pytest.fixture(scope="session")
def bundled():
    """The real thing: SmolLM2-135M-Instruct, its weights loaded."""
    from surgery import Base

    base = Base.open("bundled")
    base.load()
    return base
