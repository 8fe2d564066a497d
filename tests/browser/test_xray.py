"""The X-ray in a browser: where to cut, what the cut did, suggestions, and the log of it all."""

import re
import secrets
import time

import pytest
from hands import both_schemes, depth, open_base, own_text, plan_box, violations, write_plan
from playwright.sync_api import Page, expect

SLOW = 480_000  # milliseconds for what computes, beside other tests on a slow processor as well

pytestmark = pytest.mark.timeout(600)


def part(page: Page, name: str) -> None:
    """Open a part of the X-ray."""
    page.get_by_role("tab", name="X-ray").click()
    page.get_by_role("tab", name=name).click()


def status(page: Page, name: str):
    return page.locator(f"#{name}-status")


def test_a_layer_that_matters_is_made_plain_and_a_scan_ends_once_another_text_is_chosen(page):
    own_text(page)
    page.get_by_role("tab", name="Where to cut").click()
    page.locator("#xray-start").click()
    expect(status(page, "xray")).to_contain_text("Perplexity", timeout=SLOW)
    picture = page.locator("#xray-layers")
    hint = picture.locator(".plot-hint")
    expect(hint).to_contain_text(re.compile(r"layers \d.*\b11\b.* harmless"), timeout=SLOW)
    expect(picture.locator(".annotation-text", has_text="11")).to_be_visible()
    expect(page.locator("#xray-blocks .heatmaplayer")).to_be_visible()
    # A picture of the base's layers, tied to the base's strip.
    page.locator("[data-strip=base] .layer").nth(11).click()
    expect(picture.locator(".plot-area")).to_have_attribute("data-selected", "11")
    # It is drawn for its width again after its tab was hidden, where it had none.
    labels = picture.locator(".xtick").count()
    assert labels > 9
    page.get_by_role("tab", name="Talk").click()
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.classList.contains('dark')")
    page.wait_for_timeout(300)
    page.get_by_role("tab", name="X-ray").click()
    expect(picture.locator(".xtick")).to_have_count(labels)
    expect(picture.locator(".annotation-text", has_text="11")).to_be_visible()

    new = f"Nobody has measured text {secrets.token_hex(4)} before, and nobody waits for its end. "
    page.locator("#sample-own textarea").fill(new * 12)
    page.locator("#xray-start").click()
    stop = page.locator("#xray-stop")
    expect(stop).to_be_visible(timeout=SLOW)
    page.locator("#sample-kind input").click()
    page.get_by_role("option", name="facts").click()
    expect(status(page, "xray")).to_contain_text("scan of another base or text was stopped")
    expect(stop).to_be_hidden()


def test_from_a_cut_to_its_damage_and_back_from_the_log_and_everyone_can_read_it(small_page):
    page = small_page
    write_plan(page, "0:8, 9:30")
    depth(page, 29)
    own_text(page)
    page.get_by_role("tab", name="What the cut did").click()
    page.locator("#compare-start").click()
    expect(status(page, "compare")).to_contain_text("Compared with the plan", timeout=SLOW)
    board = page.locator("#damage")
    expect(board.locator("b").first).to_contain_text("→")
    assert "".join(board.locator(".damage-text span").all_inner_texts()).split()[-1] == "sight."
    tokens = board.locator(".damage-text span")
    token, before = tokens.nth(20), tokens.nth(19).text_content().strip()
    token.click()
    expect(token).to_have_attribute("aria-selected", "true")
    expect(board.locator(".damage-card code").first).to_have_text(token.text_content())
    lens = page.locator("#lens-patient .plot-area")
    ticks = "node => node.layout.xaxis.ticktext.at(-1).trim()"
    end = time.monotonic() + SLOW / 1000
    while lens.evaluate(ticks) != before and time.monotonic() < end:
        page.wait_for_timeout(200)
    assert lens.evaluate(ticks) == before
    write_plan(page, "0:30")
    depth(page, 30)
    page.get_by_role("tab", name="Log").click()
    rows = page.locator("#log-table .log-plan")
    expect(rows).to_have_text(["0:8, 9:30", "0:30"])
    rows.first.click()
    depth(page, 29)
    write_plan(page, "0:30")
    depth(page, 30)
    points = page.locator("#log-picture .scatterlayer .point")
    expect(points).to_have_count(2)
    points.last.click(force=True)
    depth(page, 29)
    expect(plan_box(page)).to_have_value("0:8, 9:30")

    for scheme in both_schemes(page):
        page.get_by_role("tab", name="X-ray").click()
        expect(board).to_be_visible()
        # What is around the panels is the same in the Log, and read in the dark by other tests.
        assert not violations(page, "html" if scheme == "light" else "#panels")
        page.get_by_role("tab", name="Log").click()
        expect(rows).to_have_count(2)
        assert not violations(page, "#panels")


def test_the_target_follows_the_base(page, tiny_folder):
    part(page, "Suggestions")
    size = page.locator("#suggest-size input")
    expect(size).to_have_value("26")
    page.get_by_label("million parameters").check()
    expect(size).to_have_value("114")
    page.get_by_label("layers", exact=True).check()
    expect(size).to_have_value("26")
    open_base(page, str(tiny_folder("llama")))
    depth(page, 6)
    expect(size).to_have_value("5")
    # Its skills, from a model that is quick and can do nothing.
    write_plan(page, "0:2, 4:6")
    depth(page, 4)
    page.get_by_role("tab", name="Skills").click()
    page.locator("#skills-start").click()
    expect(status(page, "skills")).to_contain_text("at chance (64 items each)", timeout=SLOW)
    board = page.locator("#skills")
    expect(board.locator("h2")).to_contain_text("after the plan 0:2, 4:6")
    rows = board.locator(".skills-rows").first.locator(".skills-row")
    expect(rows).to_have_count(9)
    first = rows.first
    first.get_by_role("button").click()
    expect(first.locator(".skills-details")).to_contain_text("An item:")
    expect(board.locator(".outdated")).to_be_hidden()
    write_plan(page, "0:6")
    expect(board.locator(".outdated")).to_contain_text("the plan changed")
    page.get_by_role("tab", name="Log").click()
    expect(page.locator("#log-table .log-skills").first).to_contain_text("at chance")


def test_a_suggestion_is_one_click_away(small_page):
    page = small_page
    own_text(page)
    page.get_by_role("tab", name="Suggestions").click()
    size = page.locator("#suggest-size input")
    size.fill("29")
    size.press("Tab")
    expect(size).to_have_value("29")
    page.locator("#suggest-start").click()
    expect(status(page, "suggest")).to_contain_text("Sorted by measured perplexity", timeout=SLOW)
    result = page.locator("#suggestions li")
    expect(result).to_have_count(5)
    first = result.first.locator("code").inner_text()
    result.first.get_by_role("button").click()
    depth(page, 29)
    expect(plan_box(page)).to_have_value(first)
    part(page, "Suggestions")
    size = page.locator("#suggest-size input")
    size.fill("30")
    size.press("Tab")
    expect(size).to_have_value("30")
    page.locator("#suggest-start").click()
    expect(status(page, "suggest")).to_contain_text("already has that size", timeout=SLOW)
