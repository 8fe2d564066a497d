"""Gradio writes no .pyi files beside components once it is told nothing of their files."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPONENT = "import gradio as gr\n\nclass Mine(gr.HTML):\n    EVENTS = ['act']\n"


@pytest.mark.parametrize("skipped", [True, False])
def test_no_stub_is_written(tmp_path, skipped):
    (tmp_path / "mine.py").write_text(COMPONENT)
    first = "from components import stubs; stubs.skip()\n" if skipped else ""
    code = f"{first}import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport mine; mine.Mine().act"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    # Without being told Gradio does write one: else there would be nothing left to skip.
    assert (tmp_path / "mine.pyi").exists() is not skipped


def test_other_classes_still_have_their_file():
    code = (
        "from components import stubs; stubs.skip()\n"
        "import inspect, pathlib; assert inspect.getfile(pathlib.Path).endswith('.py')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
