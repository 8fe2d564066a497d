"""Who may import whom: app → components → surgery, no circles, and what each part does without.

Imports within functions and under TYPE_CHECKING count too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
Imports = Mapping[str, set[str]]  # {module: the modules that it imports}


@dataclass(frozen=True)
class Rule:
    """No module of `who`, except those in `but`, imports anything in `never`. A `strict` rule holds
    for what its imports import, too."""

    who: str
    never: tuple[str, ...]
    why: str
    strict: bool = False
    but: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.who} without {self.never[0]}"

    def broken(self, imports: Imports) -> list[str]:
        """Each breach, as “module → what it imports”."""
        return [
            f"{module} → {other}"
            for module in imports
            if _within(module, self.who) and not any(_within(module, name) for name in self.but)
            for other in (_reached(imports, module) if self.strict else imports[module])
            if any(_within(other, name) for name in self.never)
        ]


# All that takes a base together with a plan.
FRONT_DOOR = (
    "surgery.base",
    "surgery.derived",
    "surgery.patient",
    "surgery.operation",
    "surgery.verification",
    "surgery.gguf",
    "surgery.facts",
    "surgery.checkpoint",
    "surgery.weight_stats",
    "surgery.analysis",
    "surgery.skills",
    "surgery.harness",
    "surgery.healing",
    "surgery.lesson",
    "surgery.cli",
)
RULES = [
    Rule(
        "surgery",
        ("app", "components", "gradio", "plotly"),
        "the library and its command line run without the page",
    ),
    Rule(
        "components",
        ("torch", "transformers", "accelerate", "safetensors"),
        "what computes belongs into the library, where it can be used without the page",
    ),
    Rule("components", ("app",), "the app starts the page, and the page runs without the app"),
    Rule("app", ("torch", "transformers", "plotly"), "the first page does not wait for them"),
    Rule(
        "surgery.plan",
        ("surgery.architecture", "surgery.sources", "surgery.io", "torch", "transformers"),
        "plans are plain data, used before anything slow is imported",
        strict=True,
    ),
    *(
        Rule(
            f"surgery.{name}",
            FRONT_DOOR,
            "it is read, tested and used without knowing what is done with a plan",
            strict=True,
        )
        for name in ("io", "architecture", "sources", "model")
    ),
    Rule(
        "surgery.checkpoint",
        ("surgery.base", "surgery.derived", "surgery.patient", "surgery.healing"),
        "saving is what a base does, and needs only the model below it",
        strict=True,
    ),
    *(
        Rule(
            name,
            ("surgery.cli",),
            "the command line only parses arguments and prints results",
            but=("surgery.cli", "surgery.__main__"),
        )
        for name in ("surgery", "components", "app")
    ),
    Rule(
        "components.widgets",
        ("components.panels", "components.sessions", "components.services", "components.page"),
        "a widget draws the values it is given, on any page",
    ),
    *(
        Rule(
            f"components.{name}",
            ("components.panels", "components.page"),
            "panels use it, so it can't use a panel",
            strict=True,
        )
        for name in ("services", "sessions", "gradio_compat")
    ),
]


def _within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _reached(imports: Imports, module: str) -> set[str]:
    """What a module imports, and what that imports, and so on."""
    reached: set[str] = set()
    left = [module]
    while left:
        new = imports.get(left.pop(), set()) - reached
        reached |= new
        left += new
    return reached


def imports_of(root: Path) -> dict[str, set[str]]:
    """What the modules of app, components and surgery import."""
    paths = {}
    for path in (root / "app.py", *root.glob("components/**/*.py"), *root.glob("surgery/**/*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        paths[".".join(part for part in parts if part != "__init__")] = path
    result = {}
    for module, path in paths.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = _imported(ast.parse(path.read_text(encoding="utf-8")), package)
        # The last part is a module or something in one.
        mine = {n if n in paths or (m := n.rpartition(".")[0]) not in paths else m for n in names}
        result[module] = mine - {module}
    return result


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of what is imported anywhere in a module of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value


def by_package(imports: Imports) -> dict[str, set[str]]:
    """Imports between packages; the modules directly in `surgery` and `components` stay apart."""
    packages = {module.rpartition(".")[0] for module in imports}

    def owner(module: str) -> str:
        parent = module.rpartition(".")[0]
        return parent if "." in parent and module not in packages else module

    result: dict[str, set[str]] = {}
    for module, others in imports.items():
        mine = owner(module)
        theirs = {owner(other) for other in others if other in imports}
        # A package may use the packages within it, and they what lies beside them.
        apart = {x for x in theirs if not _within(x, mine) and not _within(mine, x)}
        result.setdefault(mine, set()).update(apart)
    return result


def circle(imports: Imports) -> list[str]:
    """A circle of imports; empty if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def imports():
    return imports_of(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_rules_of_imports_hold(imports, rule):
    assert any(_within(module, rule.who) for module in imports)
    assert not rule.broken(imports), rule.why


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_breach_of_each_rule_is_seen(rule):
    for name in rule.never:
        assert rule.broken({f"{rule.who}.x": {f"{name}.y"}})
        through = {f"{rule.who}.x": {"surgery.between"}, "surgery.between": {name}}
        assert bool(rule.broken(through)) == (rule.strict or _within("surgery.between", rule.who))


def _across_panels(imports: Imports) -> list[str]:
    """Imports of one panel by another: each can be read, changed and removed by itself."""
    panels = {".".join(m.split(".")[:3]) for m in imports if m.startswith("components.panels.")}
    rules = [Rule(panel, tuple(panels - {panel}), "") for panel in sorted(panels)]
    return [breach for rule in rules for breach in rule.broken(imports)]


def test_no_panel_imports_another(imports):
    """The page passes what one needs of another."""
    assert not _across_panels(imports)


def test_nothing_imports_in_a_circle(imports):
    assert not circle(imports)
    assert not circle(by_package(imports))


def test_rules_are_read_off_the_files(tmp_path):
    """Every form of import is seen, in a made-up house."""
    files = {
        "app.py": "from components import page",
        "components/__init__.py": "",
        "components/page.py": "import torch.nn as nn\nfrom surgery import Plan",
        "components/panels/__init__.py": "",
        "components/panels/talk/__init__.py": "",
        "components/panels/talk/panel.py": "from ..weights.panel import draw",
        "components/panels/weights/__init__.py": "",
        "components/panels/weights/panel.py": "",
        "surgery/__init__.py": "",
        "surgery/plan.py": "def f():\n    from . import base",
        "surgery/base.py": "from .io.atomic import write",
        "surgery/io/__init__.py": "",
        "surgery/io/atomic.py": "if TYPE_CHECKING:\n    from surgery.base import Base",
        "surgery/io/copy.py": "import importlib\nimportlib.import_module('gradio')",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    result = imports_of(tmp_path)
    assert {module: others for module, others in result.items() if others} == {
        "app": {"components.page"},
        "components.page": {"torch.nn", "surgery"},
        "components.panels.talk.panel": {"components.panels.weights.panel"},
        "surgery.plan": {"surgery.base"},
        "surgery.base": {"surgery.io.atomic"},
        "surgery.io.atomic": {"surgery.base"},
        "surgery.io.copy": {"importlib", "gradio"},
    }
    broken = {breach for rule in RULES for breach in rule.broken(result)}
    assert broken == {
        "surgery.io.copy → gradio",
        "components.page → torch.nn",
        "surgery.plan → surgery.io.atomic",
        "surgery.io.atomic → surgery.base",
    }
    panels = "components.panels.talk.panel → components.panels.weights.panel"
    assert _across_panels(result) == [panels]
    assert set(circle(result)) == {"surgery.base", "surgery.io.atomic"}
    assert set(circle(by_package(result))) == {"surgery.base", "surgery.io"}


def test_the_library_runs_without_gradio(warm):
    """Not only by its imports: nothing that any of its modules pulls in may load the page."""
    code = (
        "import sys, surgery; [getattr(surgery, n) for n in surgery.__all__]; "
        "from surgery.cli.main import COMMANDS, program; program(*COMMANDS); "
        "sys.exit(any(m in sys.modules for m in ('gradio', 'plotly', 'components')))"
    )
    assert warm.run("-c", code).returncode == 0


def test_plans_need_no_torch():
    code = (
        "import sys; from surgery import Plan, History, PRESETS; Plan.parse('0:2', 4); "
        "from surgery.cli.main import COMMANDS, program; program(*COMMANDS); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_one_place_knows_model_types():
    """Outside surgery/architecture nothing names a model type; llama.cpp's are in one file, too."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for path in sorted((ROOT / "surgery").rglob("*.py")):
        if "architecture" in path.parts or path.match("gguf/architectures.py"):
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
