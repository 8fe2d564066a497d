"""Repair in a browser: pressed beside Undo, seen in the tile and on the strip, taken back."""

from hands import depth, faults, layers, open_base, write_plan
from playwright.sync_api import Page, expect

LONG = 120_000  # milliseconds for what computes


def repair_button(page: Page):
    return page.locator(".strip [data-op=repair]")


def test_a_cut_is_repaired_the_repair_undone_and_one_that_does_not_help_says_so(
    app, open_page, tiny_folder
):
    page = open_page(f"{app}/?base={tiny_folder('gpt2')}")
    depth(page, 6)
    expect(repair_button(page)).to_be_disabled()  # nothing is cut
    write_plan(page, "0:2, 4:6")
    expect(repair_button(page)).to_be_enabled()
    page.get_by_role("tab", name="Heal").click()
    cost = page.locator("#heal-cost")
    expect(cost).to_contain_text("tokens")
    repair_button(page).click()
    expect(cost).to_contain_text("from the repaired patient", timeout=LONG)
    plan = page.locator(".strip-plan input")
    expect(plan).to_have_value("0, 1@refit, 4:6@refit", timeout=LONG)
    expect(page.locator(".strip-row[data-strip=patient] .layer.fitted")).to_have_count(3)
    expect(repair_button(page)).to_be_disabled()  # it is repaired
    tile = page.locator(".quality")
    expect(tile.locator(".tile-name")).to_have_text("Quality, repaired", timeout=LONG)
    page.get_by_role("tab", name="Weights").click()
    expect(page.locator("#weights-controls .status")).to_contain_text("Repaired layers are counted")
    page.get_by_role("tab", name="Log").click()
    rows = page.locator("#log-table")
    expect(rows).to_contain_text("repaired, refit", timeout=LONG)
    page.get_by_role("tab", name="Talk").click()
    page.locator(".strip [data-op=undo]").click()
    expect(plan).to_have_value("0:2, 4:6")
    expect(page.locator(".layer.fitted")).to_have_count(0)
    page.locator(".strip [data-op=redo]").click()
    expect(tile.locator(".tile-name")).to_have_text("Quality, repaired", timeout=LONG)
    layers(page, "patient").nth(0).click()
    page.keyboard.press("Delete")  # an edit takes the fits away
    expect(plan).to_have_value("1, 4:6")
    assert not faults(page)

    open_base(page, str(tiny_folder("gemma2")))
    depth(page, 6)
    write_plan(page, "0:2, 4:6")
    repair_button(page).click()
    message = page.locator(".quality-message")
    expect(message).to_contain_text("be fitted in closed form", timeout=LONG)
    expect(page.locator(".strip-plan input")).to_have_value("0:2, 4:6")
