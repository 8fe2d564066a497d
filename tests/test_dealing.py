"""Tests are dealt out to processes as conftest.py says."""

import os


def test_a_file_stays_in_one_process(request):
    """pytest-xdist reads the group from the test's id; nothing else tells that it doesn't."""
    dealt = "PYTEST_XDIST_WORKER" in os.environ
    assert request.node.nodeid.endswith(f"@{request.path}") == dealt
