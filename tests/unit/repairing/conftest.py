"""A cache for each file of tests."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """What another run has measured or written doesn't reach this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYER_SURGERY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
