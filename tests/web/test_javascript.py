"""The page's JavaScript: linted by oxlint, tested by Node, and joined for Gradio."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.widgets.modules import bundle

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "components").rglob("*.mjs"))
MOUNTED = [path for path in MODULES if "export function mount(" in path.read_text()]
_PARSE = """
const scripts = JSON.parse(require('fs').readFileSync(process.argv[1], 'utf8'));
for (const [filename, text] of Object.entries(scripts)) {
  new (require('vm').Script)(text, { filename });
}
"""


@pytest.fixture(scope="module")
def node() -> str:
    result = shutil.which("node")
    assert result, "Node.js is missing: install it, for example by apt-get install nodejs."
    return result


def run(*command) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_oxlint_finds_nothing():
    oxlint = Path(sys.executable).with_name("oxlint")
    assert oxlint.exists(), "oxlint is missing: pip install -r tests/requirements.txt."
    run(oxlint, "components", "tests/js")


def test_node_passes(node):
    tests = sorted((ROOT / "tests/js").glob("*.test.mjs"))
    assert tests
    run(node, "--test", *tests)


def test_every_module_is_used():
    joined = "".join(bundle(path) for path in MOUNTED)
    assert len(MOUNTED) > 10
    for path in MODULES:
        assert f"// {path.name}\n" in joined, path


def test_what_gradio_gets_is_one_script(node, tmp_path):
    """Each parses as the body of a function, as Gradio uses it."""
    scripts = {
        str(path): "(function (element, trigger, props, server, upload, watch) {\n"
        f"{bundle(path)}\n}});"
        for path in MOUNTED
    }
    (tmp_path / "scripts.json").write_text(json.dumps(scripts))
    run(node, "-e", _PARSE, tmp_path / "scripts.json")


def write(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.mjs").write_text(source)
    return folder / "entry.mjs"


def test_modules_run_once_and_keep_their_names_apart(node, tmp_path):
    entry = write(
        tmp_path,
        entry="import { one } from './a.mjs';\nimport {\n  two,\n} from './b.mjs';\n"
        "const hidden = 'entry';\n"
        "export function mount({ element }) { element.push(one(), two(), hidden); }\n",
        a="import { count } from './c.mjs';\nconst hidden = 'a';\n"
        "export function one() { return count() + hidden; }\n",
        b="import { count } from './c.mjs';\nconst hidden = 'b';\n"
        "export function two() { return count() + hidden; }\n",
        c="let calls = 0;\nexport function count() { return (calls += 1); }\n",
    )
    script = (
        f"const found = []; new Function('element', 'trigger', 'props', 'watch', "
        f"{bundle(entry)!r})(found); "
        "if (found.join() !== '1a,2b,entry') throw new Error(found.join());"
    )
    run(node, "-e", script)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("export default function mount() {}\n", "is not a form"),
        ("import x from './a.mjs';\nexport function mount() {}\n", "is not a form"),
        ("import { b } from './a.mjs';\nexport function mount() {}\n", "no such name"),
        ("import { mount } from './entry.mjs';\n", "imports itself"),
        ("export const a = 1;\n", "no function called mount"),
    ],
)
def test_other_forms_are_refused(tmp_path, entry, reason):
    path = write(tmp_path, entry=entry, a="export const a = 1;\n")
    with pytest.raises(ValueError, match=re.escape(reason)):
        bundle(path)
