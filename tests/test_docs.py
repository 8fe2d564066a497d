"""The documentation: links lead somewhere, named files and objects exist, the tutorial runs."""

import ast
import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageSequence

import app
from docs import make_pictures
from surgery import SurgeryError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
TUTORIAL = DOCS / "tutorial" / "layer_surgery.ipynb"
# The tutorial's numbers, and smaller ones with which the same is done in less time.
SMALLER = {
    "max_new_tokens=16": "max_new_tokens=4",
    "limit=256": "limit=64",
    'texts.get("prose")': 'texts.get("prose")[:800]',
    'write_text(texts.get("facts")': 'write_text(texts.get("facts")[:400]',
    'text="prose.txt"': 'radius=1, text="prose.txt"',
    " steps=6": " steps=2",
    "window=128": "window=32",
    "evaluate_every=6": "evaluate_every=2",
}


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The ids that headings get: lower case, words joined by hyphens."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


def broken_links(page: Path) -> list[str]:
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", prose(page))
    broken = []
    for link in filter(None, (one or other for one, other in links)):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert not broken_links(page)


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](#a-heading) [b](#b) [c](c.md) [d](https://example.org)\n")
    assert broken_links(page) == ["#b", "c.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_files_exist(page):
    named = re.findall(r"`((?:surgery|components|tests|benchmarks|docs)/[\w./-]*)`", prose(page))
    made_up = re.compile(r"/name\b")  # stands for any name
    assert not [p for p in named if not (made_up.search(p) or (ROOT / p).exists())]


def test_the_pictures_of_the_readme_are_those_that_the_script_makes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"docs/images/[\w.-]+", readme))
    pages = {make_pictures.page_picture(scheme) for scheme in ("light", "dark")}
    made = {*pages, make_pictures.FILM}
    assert {ROOT / name for name in named} == made == set((DOCS / "images").iterdir())
    for path in made:
        assert path.stat().st_size < 3_000_000
        with Image.open(path) as image:
            assert image.size == (make_pictures.SIZE if path in pages else make_pictures.FILM_SIZE)


def test_the_film_lasts_about_twenty_seconds_and_repeats():
    with Image.open(make_pictures.FILM) as film:
        assert film.info["loop"] == 0
        lengths = [frame.info["duration"] for frame in ImageSequence.Iterator(film)]
    assert len(lengths) > 50 and 15_000 <= sum(lengths) <= 27_000


def test_every_page_is_in_the_site():
    # The file may hold tags of MkDocs that plain YAML doesn't know, but the navigation has none.
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_every_option_of_the_app_is_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py", "--help"])
    with pytest.raises(SystemExit):
        app.arguments()
    options = set(re.findall(r"^  (--[\w-]+)", capsys.readouterr().out, re.M))
    page = (DOCS / "reference" / "app.md").read_text(encoding="utf-8")
    assert options and options == set(re.findall(r"^\| `(--[\w-]+)", page, re.M))


def in_the_reference() -> dict[str, set[str]]:
    """{object: its members that are listed, none if all are} of the pages made from docstrings."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    found = re.findall(r"^::: ([\w.]+)\n((?: +.*\n)*)", pages, re.M)
    assert len(found) == len({name for name, _ in found}), "an object is listed twice"
    members = {name: re.search(r"members: \[(.*)\]", options) for name, options in found}
    return {name: set(re.split(r", *", m[1])) if m else set() for name, m in members.items()}


def definitions(module: str) -> dict[str, str | None]:
    """{class or function: its docstring} of a module, by its source: some need other packages."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        return {}
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {node.name: ast.get_docstring(node) for node in body if isinstance(node, kinds)}


def test_what_the_reference_names_is_there_and_documented():
    for name, members in in_the_reference().items():
        module, _, leaf = name.rpartition(".")
        if leaf in definitions(module):
            members = {leaf}
        else:
            module = name
        found = definitions(module)
        assert found, f"there is no {name}"
        assert all(found.get(one) for one in members), f"{members} of {module}"


def home_of(package: str, name: str) -> str:
    """Where a name that a package exports is defined."""
    try:
        return f"{getattr(import_module(package), name).__module__}.{name}"
    except SurgeryError:  # it needs a package that isn't here
        return f"{package}.{import_module(package)._HOMES[name]}.{name}"


@pytest.mark.parametrize(
    "package",
    [
        "surgery",
        "surgery.analysis",
        "surgery.gguf",
        "surgery.harness",
        "surgery.healing",
        "surgery.repairing",
        "surgery.skills",
        "surgery.weight_stats",
    ],
)
def test_all_that_a_package_exports_is_in_the_reference(package):
    reference = in_the_reference()
    # Registries and other constants have no docstring; the pages name them in a sentence.
    exported = [name for name in import_module(package).__all__ if not name.isupper()]
    missing = []
    for name in exported:
        where = home_of(package, name)
        members = reference.get(where.rpartition(".")[0])
        if where not in reference and (members is None or (members and name not in members)):
            missing.append(where)
    assert exported and not missing


def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    """Its cells, in order and with smaller numbers, but for the first one, which installs the
    package."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    install, *rest = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert install.startswith("%pip install")
    for number, smaller in SMALLER.items():
        assert sum(source.count(number) for source in rest) == 1, number
        rest = [source.replace(number, smaller) for source in rest]
    names: dict = {}
    for source in rest:
        exec(compile(source, str(TUTORIAL), "exec"), names)
    assert names["same"], "the reloaded checkpoint computes something else than the patient"
    assert "perplexity" in capsys.readouterr().out
