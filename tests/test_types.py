"""The type checker finds nothing to say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_types_agree():
    # Gradio's leftovers, which the checker would read in place of the modules.
    for stub in (ROOT / "components").rglob("*.pyi"):
        stub.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
