"""The type checker agrees, and still finds mistakes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WRONG = """
import torch
from transformers import AutoConfig

from surgery.base import Base


def wrong(base: Base, tensor: torch.Tensor) -> None:
    base.oprate
    tensor.shap
    AutoConfig.from_pretraned
    depth: str = base.depth
"""
MISTAKES = {"9": "attr-defined", "10": "attr-defined", "11": "attr-defined", "12": "assignment"}


@pytest.mark.slow
def test_types_agree(tmp_path):
    # Gradio's leftovers, which the checker would read in place of the modules.
    for stub in (ROOT / "components").rglob("*.pyi"):
        stub.unlink(missing_ok=True)
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "surgery", "components", str(wrong)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    # A cached error has the path of the run before.
    errors = re.findall(r"^(?:.+/)?(.+?):(\d+): error: .*\[(.+)\]$", done.stdout, re.M)
    expected = [(wrong.name, *mistake) for mistake in MISTAKES.items()]
    assert errors == expected, done.stdout + done.stderr
