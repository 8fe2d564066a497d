"""The weights panel in a browser: pictures that follow the plan, and are tied to the strip."""

import csv
import json
import re

import pytest
import tiny
from hands import both_schemes, depth, faults, layers, open_base, select, selected, write_plan
from playwright.sync_api import Page, expect
from window_sizes import resize

from components.widgets.colours import layer_colour
from surgery import Plan
from surgery.weight_stats import Survey, survey_base


def area(page: Page, name: str):
    return page.locator(f"#weights-{name} .plot-area")


def open_weights(page: Page) -> None:
    page.get_by_role("tab", name="Weights").click()
    expect(area(page, "heat").locator(".heatmaplayer")).to_be_visible(timeout=90_000)
    expect(area(page, "raw").locator(".heatmaplayer")).to_be_visible()


def trace(page: Page, name: str, series: str) -> dict:
    """What a picture draws, as plotly.js has it."""
    return area(page, name).evaluate(
        "(node, name) => { const t = node.data.find(t => t.name === name);"
        " return { x: Array.from(t.x), y: Array.from(t.y), text: t.text }; }",
        series,
    )


def title(page: Page, name: str):
    return page.locator(f"#weights-{name} .plot-title")


def facts(page: Page, row: str) -> list[str]:
    """A row of the table below the distributions; a column where the card is narrow."""
    lines = page.locator("#weights-detail .plot-table tr").evaluate_all(
        "all => all.map(line => [...line.cells].map(cell => cell.textContent))"
    )
    if row in lines[0]:
        lines = list(map(list, zip(*lines, strict=True)))
    return next(line[1:] for line in lines if line[0] == row)


def colours_are_the_strips(page: Page) -> None:
    shown = layers(page, "base").evaluate_all(
        """all => all.map(node => {
            const pen = document.createElement('canvas').getContext('2d');
            pen.fillStyle = getComputedStyle(node).backgroundColor;
            pen.fillRect(0, 0, 1, 1);
            return Array.from(pen.getImageData(0, 0, 1, 1).data).slice(0, 3);
        })"""
    )
    for source, seen in enumerate(shown):
        ours = [int(layer_colour(source, 30)[i : i + 2], 16) for i in (1, 3, 5)]
        assert max(abs(a - b) for a, b in zip(ours, seen, strict=True)) <= 2


def the_numbers_can_be_taken_away(page: Page) -> None:
    with page.expect_download() as download:
        page.locator("#weights-heat").get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "distribution-by-layer-all-weights.csv"
    rows = list(csv.reader(download.value.path().read_text().splitlines()))
    counts: dict[str, int] = {}
    for position, _, _, count in rows[1:]:
        counts[position] = counts.get(position, 0) + int(count)
    assert counts == {str(p): 3_540_096 for p in range(30)}
    for kind, begins in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with page.expect_download() as download:
            page.locator("#weights-depth").get_by_role("button", name=kind).click()
        assert download.value.path().read_bytes().startswith(begins)


def kinds_measures_and_spectra(page: Page, survey: Survey) -> None:
    select(page, 4, 4)
    # The answer to a selection names the kind that was chosen when it was made.
    expect(title(page, "raw")).to_have_text("Raw values: layer 4, q")
    page.locator("#weights-kind input").click()
    page.get_by_role("option", name="down", exact=True).click()
    expect(title(page, "detail")).to_have_text("Layer 4: down")
    page.locator("#weights-measure input").click()
    page.get_by_role("option", name="Kurtosis").click()
    expect(title(page, "depth")).to_have_text("Kurtosis along depth: down")
    expected = [survey.base().layer(p, "down").kurtosis for p in range(30)]
    assert trace(page, "depth", "patient")["y"] == pytest.approx(expected, rel=1e-5)
    page.get_by_label("linear").check()
    expect(area(page, "detail").locator(".ytick").first).to_be_visible()
    page.get_by_label("singular values").check()
    expect(title(page, "raw")).to_have_text("Singular values: layer 4, down", timeout=120_000)
    expect(page.locator("#weights-raw .plot-hint")).to_have_text(
        re.compile(r"Stable rank [\d.]+ of at most 576")
    )


def test_figures_come_back_after_an_error_refer_to_the_address_and_follow_the_base(
    app, open_page, tiny_folder, tmp_path
):
    page = open_page(f"{app}/?base={tiny_folder('llama')}")
    depth(page, 6)
    page.route("**/plotly.min.js", lambda route: route.abort())
    page.get_by_role("tab", name="Weights").click()
    failed = page.locator("#weights-heat .plot-failed")
    expect(failed).to_have_text("The figure could not be loaded. Reload the page.", timeout=90_000)
    page.unroute("**/plotly.min.js")
    write_plan(page, "0:2, 4:6")
    expect(area(page, "heat").locator(".heatmaplayer")).to_be_visible()
    expect(failed).to_be_hidden()
    # With it come those whose values have not changed.
    expect(area(page, "raw").locator(".heatmaplayer")).to_be_visible()

    # plotly.js writes the page's address before references within figures, and that has the plan
    # in it.
    page.get_by_role("tab", name="Log").click()  # where the figures stay as they are
    write_plan(page, "1:5")
    depth(page, 4)
    expect(page).to_have_url(re.compile("plan=1"))
    broken = page.evaluate(
        """() => [...document.querySelectorAll('.plot-area [clip-path], .plot-area .cbfill')]
          .map(node => `${node.getAttribute('clip-path')} ${node.getAttribute('style')}`)
          .flatMap(text => [...text.matchAll(/url\\(['"]?([^'")#]*)#/g)].map(found => found[1]))
          .filter(address => address && address !== location.href.split('#')[0])"""
    )
    assert broken == []

    # A base without weights to show.
    page.get_by_role("tab", name="Weights").click()
    config = tiny.config("llama", hidden_size=64, num_hidden_layers=3)
    (tmp_path / "config.json").write_text(json.dumps(config.to_diff_dict()))
    open_base(page, f"config:{tmp_path}/config.json")
    depth(page, 3)
    page.wait_for_function(
        "node => node.data?.find(t => t.name === 'patient')?.y.length === 3",
        arg=area(page, "depth").element_handle(),
    )
    expect(page.locator("#weights-status p")).to_contain_text("nearest bfloat16")


def test_it_shows_what_was_counted_to_take_away_and_follows_the_plan(page, bundled):
    colours_are_the_strips(page)
    open_weights(page)
    the_numbers_can_be_taken_away(page)
    survey = survey_base(bundled)
    norms = [survey.base().layer(p).norm for p in range(30)]
    assert trace(page, "depth", "patient")["y"] == pytest.approx(norms, rel=1e-5)
    write_plan(page, "0:13, 17:30, 29@identity")
    depth(page, 27)
    expect(page.locator("#weights-depth .plot-hint")).to_contain_text("2 seams")
    picture = survey.picture(Plan.parse("0:13, 17:30, 29@identity", 30))
    norms = [picture.layer(p).norm for p in range(27)]
    drawn = trace(page, "depth", "patient")
    assert drawn["y"] == pytest.approx(norms, rel=1e-5)
    assert drawn["text"] == [*range(13), *range(17, 30), 29]
    jump = f"{100 * (norms[26] / norms[25] - 1):+.1f} %".replace("-", "−")
    expect(area(page, "depth")).to_contain_text(jump)
    # The whole patient against the whole base.
    assert facts(page, "base")[0] == f"{30 * 3_540_096:,}"
    assert facts(page, "patient")[0] == f"{27 * 3_540_096:,}"
    page.keyboard.press("Escape")
    select(page, 0, 0)
    page.keyboard.press("Control+z")
    depth(page, 30)
    expect(page.locator("#weights-depth .plot-hint")).to_contain_text("no seams yet")
    kinds_measures_and_spectra(page, survey)


def test_the_strip_and_the_pictures_point_at_one_another(page):
    open_weights(page)
    write_plan(page, "0:5, 3:30")
    depth(page, 32)
    expect(page.locator("#weights-depth .plot-hint")).to_contain_text("the seam of the plan")
    # From the strip: a selection of the patient, then one of the base that stands there twice.
    select(page, 6, 8)
    for name in ("heat", "depth"):
        expect(area(page, name)).to_have_attribute("data-selected", "6 7 8")
    expect(title(page, "detail")).to_have_text("Layers 4 … 6 (3): all weights")
    select(page, 3, 3, "base")
    expect(area(page, "heat")).to_have_attribute("data-selected", "3 5")
    expect(title(page, "detail")).to_have_text("Layers 3 … 3 (2): all weights")
    layers(page, "patient").nth(10).hover()
    expect(area(page, "heat")).to_have_attribute("data-hovered", "10")

    # From a picture: hovering lights the layer up, a click selects it in the strip.
    box = area(page, "heat").locator(".nsewdrag[data-subplot=xy]").bounding_box()
    at = (box["x"] + box["width"] * 20.5 / 32, box["y"] + box["height"] / 2)
    page.mouse.move(*at)
    expect(page.locator("[data-strip=patient] .layer.lit").first).to_have_attribute(
        "data-source", "18"
    )
    page.mouse.click(*at)
    expect(selected(page)).to_have_count(1)
    expect(selected(page)).to_have_attribute("data-source", "18")
    expect(area(page, "depth")).to_have_attribute("data-selected", "20")
    expect(title(page, "detail")).to_have_text("Layer 18: all weights")
    expect(title(page, "raw")).to_have_text("Raw values: layer 18, q")


def test_everyone_can_read_it(app, open_page):
    sizes = [(390, 844), (1920, 1080)]
    page = open_page(app, *sizes[0])
    open_weights(page)
    for scheme in both_schemes(page):
        # In the dark, colours alone differ, and those don't depend on the size.
        for width, height in sizes if scheme == "light" else sizes[-1:]:
            resize(page, width, height)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            table = page.locator("#weights-detail .plot-scroll")
            assert table.evaluate("box => box.scrollWidth <= box.clientWidth")  # nothing is cut off
            pictures = page.locator(".plot:visible").all()
            assert pictures
            for picture in pictures:
                box = picture.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= width
            assert not faults(page, "#panels")  # other tests read what is around them
