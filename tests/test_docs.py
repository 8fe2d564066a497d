"""The documentation: links lead somewhere, named files exist, the tutorial runs."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageSequence

import app
from docs import make_pictures

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
TUTORIAL = DOCS / "tutorial" / "layer_surgery.ipynb"


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


def test_the_tutorial_runs(bundled, tmp_path, monkeypatch, capsys):
    """Its cells, in order, but for the first one, which installs the package."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    install, *rest = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert install.startswith("%pip install")
    names: dict = {}
    for source in rest:
        exec(compile(source, str(TUTORIAL), "exec"), names)
    assert names["same"], "the reloaded checkpoint computes something else than the patient"
    assert "perplexity" in capsys.readouterr().out
