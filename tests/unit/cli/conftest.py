"""What the tests of the command line share."""

import pytest

from surgery.cli.main import main


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command line here, with a cache of its own: (exit status, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        status = main([str(a) for a in arguments])
        return status, *capsys.readouterr()

    return run
