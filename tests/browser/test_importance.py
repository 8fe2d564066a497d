"""How much each layer matters, on the strip: shipped, measured on request, layer by layer."""

import re
import time
from urllib.parse import quote

import tiny
import torch
from hands import depth, layers, open_base, select
from playwright.sync_api import expect


def bars(page):
    return page.locator(".strip-bars i")


def test_the_importance_of_the_bundled_model_is_there_at_once(page):
    expect(bars(page)).to_have_count(30)
    label = page.locator(".strip-importance-label")
    expect(label).to_be_visible()
    hint = label.get_attribute("title")
    assert "nats per token" in hint and "tokens of" in hint
    heights = bars(page).evaluate_all("all => all.map(bar => bar.offsetHeight)")
    assert heights[0] == max(heights) > 2 * heights[17] > 0
    broken = page.locator(".strip-bars i.breaking").evaluate_all(
        "all => all.map(bar => [...bar.parentNode.children].indexOf(bar))"
    )
    assert {0, 1, 11, 29} <= set(broken) and len(broken) < 10
    # Each stands over its tile, which says the same to a screen reader.
    tile, bar = layers(page, "base").nth(11).bounding_box(), bars(page).nth(11).bounding_box()
    assert abs(tile["x"] - bar["x"]) < 1 and bar["y"] + bar["height"] <= tile["y"]
    expect(layers(page, "base").nth(11)).to_have_attribute(
        "aria-label", re.compile("without it the model breaks .* nats per token")
    )
    # It arrives after the base, and leaves what was done meanwhile.
    select(page, 3, 4)
    page.keyboard.press("Delete")
    depth(page, 28)
    expect(bars(page)).to_have_count(30)


def never_measured(folder, **changes) -> str:
    """A model with new weights, saved there."""
    model = tiny.model("llama", **changes)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(torch.tensor(time.time() % 1))
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_importance_of_other_bases_is_measured_on_request_and_bars_appear_meanwhile(
    app, open_page, tmp_path
):
    wide = {"num_hidden_layers": 24, "hidden_size": 128, "intermediate_size": 768}
    page = open_page(f"{app}/?base={quote(never_measured(tmp_path / 'wide', **wide), safe='')}")
    depth(page, 24)
    measure = page.get_by_role("button", name="Measure importance")
    expect(bars(page)).to_have_count(0)
    measure.click()
    expect(page.get_by_role("tab", name="X-ray")).to_have_attribute("aria-selected", "true")
    measured = page.locator(".strip-bars i:not(.unmeasured)")
    page.wait_for_function(
        "() => { const all = document.querySelectorAll('.strip-bars i').length;"
        " const left = document.querySelectorAll('.strip-bars .unmeasured').length;"
        " return all === 24 && left > 0 && left < 24; }",
        timeout=120_000,
    )
    expect(page.locator("#xray-stop")).to_be_visible()
    few = measured.count()
    page.wait_for_function(
        "few => document.querySelectorAll('.strip-bars i:not(.unmeasured)').length > few",
        arg=few,
        timeout=120_000,
    )
    page.locator("#xray-stop").click()
    expect(page.locator("#xray-status p")).to_contain_text("Stopped")
    assert measured.count() > few  # what was measured stays

    open_base(page, never_measured(tmp_path / "narrow"))
    depth(page, 6)
    expect(bars(page)).to_have_count(0)
    measure.click()
    expect(page.locator("#xray-status p")).to_contain_text("Perplexity", timeout=120_000)
    expect(bars(page)).to_have_count(6)
    expect(measured).to_have_count(6)
    expect(measure).to_be_hidden()
