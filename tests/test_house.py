"""How the house is laid out: app → components → surgery, and never back."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "surgery": {"gradio", "plotly", "components", "app"},
    "components": {"torch", "transformers", "accelerate", "safetensors", "app"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(node.args[0].value.partition(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & FORBIDDEN[package], path


def test_app_holds_no_torch():
    assert not imported(ROOT / "app.py") & {"torch", "transformers", "plotly"}


def test_the_library_runs_without_gradio():
    """Not only by its imports: nothing that the library pulls in may load the page."""
    code = (
        "import sys, surgery, surgery.cli.main; [getattr(surgery, n) for n in surgery.__all__]; "
        "sys.exit(any(m in sys.modules for m in ('gradio', 'plotly', 'components')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_plans_need_no_torch():
    code = (
        "import sys; from surgery import Plan, History, PRESETS; Plan.parse('0:2', 4); "
        "import surgery.cli.main; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_page_is_put_together_without_torch():
    """The first picture doesn't wait for what takes seconds to import."""
    code = (
        "import sys; from components.page import build, launch_options; build(); launch_options(); "
        "sys.exit(', '.join({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_place_knows_model_types():
    """Outside surgery/architecture nothing names a model type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for path in sorted((ROOT / "surgery").rglob("*.py")):
        if "architecture" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        assert not known & {w for w in words if isinstance(w, str)}, path


def test_the_code_is_tidy():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
