"""What several test files need: tiny bases on disk, and the bundled model."""

import gc
import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Tests run side by side, a process for each processor: more threads would only be in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import HealthCheck, settings

from components.gradio_compat import skip_stubs

gc.disable()  # until all is imported, which makes a million objects and no garbage
skip_stubs.skip()  # as the app does, before Gradio is imported: stubs take half of that time

TESTS = Path(__file__).parent
# Two workers drive a browser, each with servers of its own. These files take as long as the others.
# The public app is needed by the first worker alone.
FIRST_BROWSER = ("test_heal", "test_public", "test_quality", "test_room", "test_talk", "test_xray")

_SERVER: pytest.StashKey = pytest.StashKey()

# How long an example takes says something of the machine, not of the code.
_ANY = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any machine", **_ANY)
settings.register_profile("thousands", max_examples=5000, **_ANY)
settings.load_profile("any machine")


def pytest_xdist_auto_num_workers() -> int:
    """More than processors, since workers also wait: for servers, browsers and timeouts."""
    return (3 * (os.cpu_count() or 1) + 1) // 2


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests out: a file stays on one worker, the zoo is spread over all, and what takes
    longest comes first, so that no worker ends long after the others."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in ("browser", "zoo"):
            item.add_marker(folder)
        if folder == "browser":
            group = f"browser {item.path.stem in FIRST_BROWSER}"
        else:
            group = str(item.path)
        if folder != "zoo":
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_later)


def _later(item: pytest.Item) -> tuple[bool, ...]:
    browser, slow, zoo = (item.get_closest_marker(name) for name in ("browser", "slow", "zoo"))
    return (not browser, not slow, bool(zoo))


def pytest_collection_finish() -> None:
    """Collect garbage again, but never look through what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def quiet():
    # Imported here and not above, so that the process that deals out the tests does without torch.
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A function: the folder of a family's tiny checkpoint, with a tokenizer."""
    import tiny

    from surgery import Base

    made, opened = {}, Base.open  # which tests replace

    def folder(family: str, **save_options):
        key = (family, *sorted(save_options.items()))
        if key not in made:
            path = tmp_path_factory.mktemp(family)
            tiny.model(family).save_pretrained(path, **save_options)
            tiny.tokenizer().save_pretrained(path)
            # Kept open, so that what follows from its config is worked out once for all tests.
            made[key] = path, opened(str(path))
        return made[key][0]

    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Have the workers of pytest-xdist forked, too."""
    if workers := config.getoption("tx", None):
        config.option.tx = [f"popen//python={_warm_server(config).executable}"] * len(workers)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell each worker of pytest-xdist where to have processes forked."""
    node.workerinput["warm"] = _warm_server(node.config).address


def _warm_server(config: pytest.Config):
    """The one of this run, which imports nothing until it is first asked for a process."""
    from warm import Server

    if _SERVER not in config.stash:
        config.stash[_SERVER] = Server()
    return config.stash[_SERVER]


def pytest_unconfigure(config: pytest.Config) -> None:
    if server := config.stash.get(_SERVER, None):
        server.close()


@pytest.fixture(scope="session")
def warm(pytestconfig):
    """What processes are forked from that have torch and this project imported."""
    from warm import Warm

    worker = getattr(pytestconfig, "workerinput", None)
    return Warm(worker["warm"]) if worker else _warm_server(pytestconfig)


@pytest.fixture(scope="session")
def bundled():
    """The real thing: SmolLM2-135M-Instruct, its weights loaded."""
    from surgery import Base

    base = Base.open("bundled")
    base.load()
    return base
